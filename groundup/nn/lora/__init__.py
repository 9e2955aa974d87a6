"""Adapters of low rank next to frozen linear layers."""
