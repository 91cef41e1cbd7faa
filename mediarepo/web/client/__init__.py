"""The endpoints that clients use."""
