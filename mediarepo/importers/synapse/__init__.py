"""Reads Synapse: its configuration, tables, folders and buckets, or its admin API."""
