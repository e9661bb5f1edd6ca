"""Interfaces with the names and signatures of other projects, for their users."""
