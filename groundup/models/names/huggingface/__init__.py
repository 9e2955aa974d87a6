"""Names of the library transformers, a file for each family."""
