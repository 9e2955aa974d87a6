"""Chat templates: the built-in ones, those that come with a tokenizer, and their sandbox."""
