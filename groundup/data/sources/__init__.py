"""The sources that a recipe's data section can name, a file each."""
