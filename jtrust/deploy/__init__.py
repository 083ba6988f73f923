"""A policy for use elsewhere."""
