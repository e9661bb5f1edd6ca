"""Whole jobs, from a model to what a person asked for."""
