"""Reads servers that keep media in key-value databases: Conduit, Tuwunel and their forks."""
