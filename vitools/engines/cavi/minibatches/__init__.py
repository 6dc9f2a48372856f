"""Coordinate ascent on some rows at a time."""
