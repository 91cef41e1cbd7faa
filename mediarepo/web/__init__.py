"""A client or a server speaks HTTP."""
