"""How robust trained models are: attacks, corruptions, and how sure the figures are."""
