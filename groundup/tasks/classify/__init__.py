"""Learning classes: one, ordered ones, or several at once."""
