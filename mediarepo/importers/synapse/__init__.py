"""Synapse: its configuration, its tables, its folders, its admin API."""
