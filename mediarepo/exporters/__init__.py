"""What writes the databases, folders and buckets of others."""
