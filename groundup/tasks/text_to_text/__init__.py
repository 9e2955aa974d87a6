"""Any text from any other: translation, summaries, answers, corrections."""
