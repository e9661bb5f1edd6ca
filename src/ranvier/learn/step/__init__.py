"""A program's step run many times: what is fixed runs once, the rest follows a schedule."""
