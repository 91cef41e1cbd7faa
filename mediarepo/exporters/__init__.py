"""Writes the databases, folders and buckets of other repositories."""
