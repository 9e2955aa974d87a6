"""Files of other programs: GGUF, folders in Hugging Face layout, and the libraries that read them."""
