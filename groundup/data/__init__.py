"""Where examples come from, how they are read, cleaned and split, and the order of batches."""
