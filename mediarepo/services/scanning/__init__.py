"""Content scanners: what is scanned, when, and what follows from it."""
