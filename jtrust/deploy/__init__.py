"""A policy taken elsewhere, and pictures of what it does."""
