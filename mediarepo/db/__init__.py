"""Rows, in Postgres."""
