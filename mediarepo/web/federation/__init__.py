"""Federation endpoints."""
