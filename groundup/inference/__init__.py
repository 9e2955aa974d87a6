"""Opening a run to predict and to evaluate, with groundup's own decoding or with llama.cpp."""
