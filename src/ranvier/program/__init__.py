"""The program: a traced time step with named slots, and what is known of each primitive."""
