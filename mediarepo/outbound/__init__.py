"""The only door to other people's HTTP servers, guarded."""
