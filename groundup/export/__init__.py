"""Runs written for other tools, each held against the trained model before it gets its name."""
