"""Data sets: digit scenes made on the fly, and folders of images with optional boxes."""
