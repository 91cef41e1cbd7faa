"""The operator speaks."""
