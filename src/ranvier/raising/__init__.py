"""From a program to a graph of populations and projections."""
