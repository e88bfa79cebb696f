"""Robustness of trained models: attacks, corruptions, and checks of how reliable the results are."""
