"""matrix-media-repo: its configuration, its tables, its datastores."""
