"""Media for people: files, with a list of what they are."""
