"""How well learning rules suit a model, and the choice of rules from that."""
