"""Mixtures: rows that come from a few unseen kinds."""
