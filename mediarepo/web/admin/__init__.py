"""Admin endpoints."""
