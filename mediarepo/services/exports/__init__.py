"""Exports of media to other repositories and to files."""
