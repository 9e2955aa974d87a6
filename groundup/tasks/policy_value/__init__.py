"""Learn to play a game: what to do in a position, and what to expect of it."""
