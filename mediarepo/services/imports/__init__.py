"""Imports of media from other repositories: decide, transfer, commit, verify, undo."""
