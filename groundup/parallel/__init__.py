"""One run on many processes: who they are, what they say to each other, and what is said where one
of them fails."""
