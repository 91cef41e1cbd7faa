"""A Postgres and an S3 of our own, for the quick start and the tests."""
