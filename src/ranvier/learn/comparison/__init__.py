"""How good learning rules are for a model, and choosing by it."""
