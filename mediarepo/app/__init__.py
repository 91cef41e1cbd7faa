"""Composition root: builds every service from its collaborators."""
