"""Where examples come from, and in which order."""
