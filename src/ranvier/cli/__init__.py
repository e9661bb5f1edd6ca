"""The command ``ranvier``."""
