"""Operator endpoints."""
