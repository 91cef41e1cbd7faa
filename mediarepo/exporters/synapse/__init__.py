"""Media for a Synapse: rows in its tables, bytes at its paths."""
