"""Traced populations become neurons with names, where running both shows that they agree."""
