"""Parses web pages into previews; no I/O."""
