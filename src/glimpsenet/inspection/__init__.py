"""Inspect what the model does."""
