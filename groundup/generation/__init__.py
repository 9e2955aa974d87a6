"""Writing with a language model: decoding, scoring, and caches."""
