"""Learning answers in conversations."""
