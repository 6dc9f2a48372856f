"""Distributions that torch lacks or gets wrong, reparameterised and kept in log-space."""

from vitools.distributions.concrete import Concrete
from vitools.distributions.dirichlet import Beta, Dirichlet
from vitools.distributions.kumaraswamy import Kumaraswamy
from vitools.distributions.logistic_normal import LogisticNormal
from vitools.distributions.markov_chains import CategoricalMarkovChain, GaussianMarkovChain
from vitools.distributions.mv_kumaraswamy import MVKumaraswamy
from vitools.distributions.stick_breaking import StickBreaking

__all__ = [
    "Beta",
    "CategoricalMarkovChain",
    "Concrete",
    "Dirichlet",
    "GaussianMarkovChain",
    "Kumaraswamy",
    "LogisticNormal",
    "MVKumaraswamy",
    "StickBreaking",
]
