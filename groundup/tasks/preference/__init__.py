"""Learning from pairs of answers which one people prefer."""
