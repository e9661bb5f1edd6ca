"""Passes that make graphs smaller: one file each, with a stated promise."""
