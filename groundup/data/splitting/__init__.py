"""Which examples are trained on, and which are held out."""
