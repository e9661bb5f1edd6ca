"""Running graphs with JAX."""
