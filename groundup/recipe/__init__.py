"""Recipes: their sections, how YAML is read, and what a starting point fills in. No torch here."""
