"""Graphs in other systems' formats."""
