"""Tokenizers: learned here, read from tokenizer.json, or read from a GGUF file."""
