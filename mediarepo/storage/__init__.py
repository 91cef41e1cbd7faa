"""Bytes, in S3."""
