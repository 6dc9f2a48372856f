"""Measurements turned into a verdict in words, with a remedy."""
