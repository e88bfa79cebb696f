"""Seeing what the model does."""
