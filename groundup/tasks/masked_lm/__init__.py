"""Learning hidden tokens from both sides, as BERT does."""
