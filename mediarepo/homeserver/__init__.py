"""The configured homeservers: tokens, admins, users."""
