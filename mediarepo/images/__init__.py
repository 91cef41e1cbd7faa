"""Image decoding and thumbnails."""
