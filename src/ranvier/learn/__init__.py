"""Online learning: learners, the machinery they share, and the rules."""
