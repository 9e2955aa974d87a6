"""Writing a run's model for other programs, checked against them."""
