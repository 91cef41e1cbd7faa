"""Reads other media repositories; never writes to them."""
