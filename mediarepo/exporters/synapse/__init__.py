"""Writes rows and files for a Synapse."""
