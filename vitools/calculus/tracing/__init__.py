"""A Pyro model run once on latents that carry expressions instead of values."""
