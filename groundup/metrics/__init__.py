"""Scores and baselines, each a function of predictions and what was right."""
