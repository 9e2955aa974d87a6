"""Detection: boxes around things in pictures, and what they are."""
