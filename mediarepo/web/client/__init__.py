"""Client endpoints."""
