"""A web page for trying a trained run; the only package that imports the web framework (extra ``demo``)."""
