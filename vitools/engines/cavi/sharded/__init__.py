"""Coordinate ascent on rows of which every process has some."""
