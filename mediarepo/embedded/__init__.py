"""A Postgres and an S3 server of our own, for the quick start and the tests."""
