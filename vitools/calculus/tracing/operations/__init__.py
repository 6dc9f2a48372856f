"""Torch's operations on latents, each with its rule; ``table`` lists them all."""
