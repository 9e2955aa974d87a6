"""What is removed from data, and copies that are found in it."""
