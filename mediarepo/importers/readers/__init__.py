"""Building blocks of sources: databases, folders and buckets, and the merge join of rows and bytes."""
