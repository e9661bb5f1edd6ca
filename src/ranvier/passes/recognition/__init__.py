"""Traced populations become named neurons if running both shows that they agree."""
