"""Files of other programs: GGUF, Hugging Face folders, and the libraries that read them."""
