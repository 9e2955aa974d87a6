"""Layers that models share, from attention to losses, and how their parts are called."""
