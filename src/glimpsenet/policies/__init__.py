"""Policies that choose the next window, and their parts."""
