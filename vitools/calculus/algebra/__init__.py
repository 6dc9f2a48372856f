"""Atoms, terms and expressions: E log p as a sum of einsum terms."""
