"""Media from another repository: read only, whatever it is."""
