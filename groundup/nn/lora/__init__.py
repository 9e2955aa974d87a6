"""Adapters of low rank beside frozen linear layers."""
