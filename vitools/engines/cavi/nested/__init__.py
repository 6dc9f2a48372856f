"""Factors that depend on the values of a few latents: by cells of scalars, or on a lattice of values."""
