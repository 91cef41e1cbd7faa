"""The configuration file's sections."""
