"""The outbound HTTP clients for other people's servers, behind the SSRF guard."""
