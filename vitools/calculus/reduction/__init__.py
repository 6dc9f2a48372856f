"""Fewer numbers for the same sum: distinct rows, folded constants, contraction orders."""
