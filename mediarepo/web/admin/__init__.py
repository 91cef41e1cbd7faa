"""The endpoints that admins use."""
