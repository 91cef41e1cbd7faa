"""The admin console, a page for browsers."""
