"""How fast mediarepo is, beside nginx and the bare S3 server."""
