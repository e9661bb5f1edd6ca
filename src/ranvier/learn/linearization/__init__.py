"""A chunk of steps, linearized: the same-step gradient, D, f and the learning signals L."""
