"""Losses, the Lightning task, and ``fit``: from a configuration to a run folder."""
