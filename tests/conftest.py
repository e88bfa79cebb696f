"""Shapes and types of every annotated function are checked while the tests run; one thread, so that runs repeat."""

import jaxtyping

with jaxtyping.install_import_hook("glimpsenet", "beartype.beartype"):
    import glimpsenet  # noqa: F401

import torch

torch.set_num_threads(1)
