"""Names and shapes of other projects, for their users."""
