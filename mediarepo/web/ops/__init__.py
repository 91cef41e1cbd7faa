"""The endpoints that operators use."""
