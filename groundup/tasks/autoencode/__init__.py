"""Pictures as codes: the loss of what is left of them, and how good it is."""
