"""The variational auto-encoder: model, amortised guide, data, evaluation, a linear baseline.

Pictures are in :mod:`vitools.models.vae.pictures`, which needs matplotlib and is imported apart.
"""

from vitools.models.vae.baseline import (
    FactorAnalysis,
    factor_analysis,
    factor_analysis_log_likelihood,
)
from vitools.models.vae.evaluation import (
    ElboTerms,
    ImportanceBound,
    closed_form_kl,
    elbo_terms,
    importance_weighted_log_likelihood,
)
from vitools.models.vae.images import ImageData, binarise, dequantise, load
from vitools.models.vae.model import VAE, Simulated

__all__ = [
    "VAE",
    "ElboTerms",
    "FactorAnalysis",
    "ImageData",
    "ImportanceBound",
    "Simulated",
    "binarise",
    "closed_form_kl",
    "dequantise",
    "elbo_terms",
    "factor_analysis",
    "factor_analysis_log_likelihood",
    "importance_weighted_log_likelihood",
    "load",
]
