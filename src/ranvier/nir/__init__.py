"""NIR graphs and files, read and written."""
