"""The variational auto-encoder: model, amortised guide, data, evaluation, a linear baseline.

Pictures are in :mod:`vitools.models.vae.pictures`, which needs matplotlib and is imported apart.
"""

from typing import Any

from vitools.models import Example
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
    "example",
    "factor_analysis",
    "factor_analysis_log_likelihood",
    "importance_weighted_log_likelihood",
    "load",
]


def example(seed: int) -> Example:
    """A VAE with two latents on the embedded digits, in minibatches, with its encoder as guide."""
    data = load(seed=seed)
    vae = VAE(data.train.shape[1], latent_dim=2, hidden=(128,), seed=seed)

    def pictures() -> dict[str, Any]:
        from vitools.models.vae import pictures as draw

        held_out, labels = data.held_out, data.held_out_labels
        return {
            "reconstructions": draw.plot_reconstructions(vae, held_out[:10]),
            "prior_samples": draw.plot_prior_samples(vae, seed=seed),
            "latent_plane": draw.plot_latent_plane(vae),
            "interpolation": draw.plot_interpolation(vae, held_out[:5], held_out[5:10]),
            "latent_scatter": draw.plot_latent_scatter(vae, held_out, labels),
        }

    return Example(
        vae.model,
        (data.train,),
        f"{len(data.train)} binarised 8×8 digits, 2 latents, batches of 100",
        {"batch_size": 100},
        guide=vae.guide,
        learning_rate=3e-3,
        pictures=pictures,
    )
