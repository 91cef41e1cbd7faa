"""Value types that every layer uses."""
