"""Reads matrix-media-repo: its configuration, tables and datastores."""
