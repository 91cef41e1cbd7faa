"""The endpoints that other servers use."""
