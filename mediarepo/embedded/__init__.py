"""Embedded Postgres and S3 servers, for the quick start and the tests."""
