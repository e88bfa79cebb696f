"""A web page to play with a trained run; the only part that imports the web framework (extra ``demo``)."""
