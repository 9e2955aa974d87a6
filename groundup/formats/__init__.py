"""File formats of other tools, read and written here: arrays and plain values, nothing about models."""
