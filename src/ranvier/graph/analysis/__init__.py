"""Facts about SNNGraphs."""
