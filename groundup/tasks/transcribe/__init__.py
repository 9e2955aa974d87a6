"""What is said in a sound, as text."""
