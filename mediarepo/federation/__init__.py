"""Federation: discovery, requests, signatures, and remote media."""
