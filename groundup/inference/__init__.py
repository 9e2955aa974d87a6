"""Opening a run to predict and to evaluate, with our own decoding or with llama.cpp."""
