"""Other servers' media: how they are found, asked and answered."""
