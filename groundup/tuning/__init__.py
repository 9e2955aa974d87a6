"""Trying settings: searches, and the learning rate range test."""
