"""Latent trajectories of Markov chains of discrete states, summed out by the forward algorithm."""
