"""Guides of independent factors, one family for each kind of support."""
