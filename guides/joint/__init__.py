"""Guides that draw all latents together."""
