"""Media for a matrix-media-repo: rows in its tables, bytes in its datastores."""
