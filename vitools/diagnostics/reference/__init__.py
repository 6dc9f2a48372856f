"""Moments, and how far a fit's are from those of a reference."""
