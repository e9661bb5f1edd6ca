"""What a learner does with a sequence of steps."""
