"""glimpsenet."""
