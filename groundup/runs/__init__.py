"""The run folder: recipe, log, checkpoints and the saved processor."""
