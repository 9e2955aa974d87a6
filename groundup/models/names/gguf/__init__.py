"""Names of llama.cpp, a file for each family."""
