"""What a media repository does."""
