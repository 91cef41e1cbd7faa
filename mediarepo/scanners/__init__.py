"""Clients of content scanners."""
