"""Whole trajectories of Markov chains as single distributions."""

from vitools.distributions.markov_chains.categorical import CategoricalMarkovChain
from vitools.distributions.markov_chains.gaussian import GaussianMarkovChain

__all__ = ["CategoricalMarkovChain", "GaussianMarkovChain"]
