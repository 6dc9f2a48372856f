"""Factors: tables explained by the product of two smaller ones."""
