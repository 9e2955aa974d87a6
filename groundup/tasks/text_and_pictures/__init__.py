"""Pictures written token by token from captions, and captions from pictures."""
