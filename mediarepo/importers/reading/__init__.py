"""What sources are made of: databases, folders, buckets, and how rows meet their bytes."""
