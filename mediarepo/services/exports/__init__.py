"""Media on their way out: what goes, and what became of it."""
