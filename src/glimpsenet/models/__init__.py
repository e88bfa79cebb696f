"""The recurrent glimpse classifier and its parts; ``glimpsenet.py`` is the algorithm."""
