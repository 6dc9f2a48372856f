"""Bounds on the evidence, and on errors, from weights."""
