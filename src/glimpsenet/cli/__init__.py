"""The command line; ``main`` runs a command."""

from glimpsenet.cli.app import main

__all__ = ["main"]
