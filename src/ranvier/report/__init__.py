"""What a person sees: explanations, summaries, JSON and pictures."""
