"""A standalone Matrix media repository: every byte in S3, every fact in Postgres."""
