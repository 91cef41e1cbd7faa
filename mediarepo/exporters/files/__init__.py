"""Media as files, with lists that describe them."""
