"""The models that a recipe can name, a file for each family."""
