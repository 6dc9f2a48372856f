"""Layers, latent spaces and likelihoods of which a VAE is built."""
