"""Learning several targets at once, and weighing their losses."""
