"""What a media repository does: no HTTP, no SQL, no S3."""
