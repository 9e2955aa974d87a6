"""What several tasks use: writing texts, and comparing before with after."""
