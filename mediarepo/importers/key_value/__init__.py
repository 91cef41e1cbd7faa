"""Servers that keep facts about media in trees of keys and values: Conduit, Tuwunel and their kin."""
