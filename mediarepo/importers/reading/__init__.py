"""What sources are made of: databases, folders and buckets, and the merge join of rows and bytes."""
