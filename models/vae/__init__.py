"""The variational auto-encoder: model, amortised guide, data, evaluation, a linear baseline.

Pictures are in :mod:`vitools.models.vae.pictures`, which needs matplotlib and is imported apart.
"""

from pathlib import Path
from typing import Any

from vitools.errors import DataError
from vitools.models import Example
from vitools.models.vae.base import DeepModel
from vitools.models.vae.evaluation.anomaly import Roc, anomaly_scores, roc
from vitools.models.vae.evaluation.baseline import (
    FactorAnalysis,
    factor_analysis,
    factor_analysis_log_likelihood,
    linear_vae,
    probabilistic_pca,
)
from vitools.models.vae.evaluation.evaluation import (
    Average,
    ElboTerms,
    ImportanceBound,
    average,
    closed_form_kl,
    elbo_terms,
    importance_weighted_log_likelihood,
)
from vitools.models.vae.evaluation.latent_use import (
    LatentInformation,
    active_units,
    latent_information,
    unit_variances,
)
from vitools.models.vae.evaluation.refinement import InferenceGaps, inference_gaps
from vitools.models.vae.images import ImageData, binarise, dequantise, load, quantise
from vitools.models.vae.model import VAE, Simulated
from vitools.models.vae.networks.layers import Networks, convolutional
from vitools.models.vae.weights import LogWeights, log_weights

__all__ = [
    "VAE",
    "Average",
    "DeepModel",
    "ElboTerms",
    "FactorAnalysis",
    "ImageData",
    "ImportanceBound",
    "InferenceGaps",
    "LatentInformation",
    "LogWeights",
    "Networks",
    "Roc",
    "Simulated",
    "active_units",
    "anomaly_scores",
    "average",
    "binarise",
    "closed_form_kl",
    "convolutional",
    "dequantise",
    "elbo_terms",
    "example",
    "factor_analysis",
    "factor_analysis_log_likelihood",
    "importance_weighted_log_likelihood",
    "inference_gaps",
    "latent_information",
    "linear_vae",
    "load",
    "log_weights",
    "probabilistic_pca",
    "quantise",
    "roc",
    "unit_variances",
]


def example(seed: int, folder: Path | None = None) -> Example:
    """A VAE with two latents in minibatches, its encoder as guide: of the embedded digits, or of
    the images in a folder (see ``folders.py``), half of the held-out ones for validation.
    """
    data = load(folder, seed=seed)
    if len(data.held_out) < 20:
        raise DataError(f"{folder}: expected 20 held-out images at least, got {len(data.held_out)}")
    validation, held_out = data.held_out.tensor_split(2)
    num_images, num_pixels = data.train.shape
    vae = VAE(num_pixels, latent_dim=2, hidden=(max(128, num_pixels // 2),), seed=seed)
    batch_size = min(100, num_images)

    def pictures(fit: Any) -> dict[str, Any]:  # the networks were trained in place
        from vitools.models.vae import pictures as draw

        labels, shape = data.held_out_labels[len(validation) :], data.shape
        return {
            "reconstructions": draw.plot_reconstructions(vae, held_out[:10], shape=shape),
            "prior_samples": draw.plot_prior_samples(vae, seed=seed, shape=shape),
            "latent_plane": draw.plot_latent_plane(vae, shape=shape),
            "interpolation": draw.plot_interpolation(
                vae, held_out[:5], held_out[5:10], shape=shape
            ),
            "latent_scatter": draw.plot_latent_scatter(vae, held_out[:2000], labels[:2000]),
        }

    what = f"binarised {data.shape[0]}×{data.shape[1]} {'digits' if folder is None else 'images'}"
    return Example(
        vae.model,
        (data.train,),
        f"{num_images} {what}, 2 latents, batches of {batch_size}",
        {"batch_size": batch_size},
        guide=vae.guide,
        learning_rate=3e-3,
        pictures=pictures,
        validation=(validation,),
        held_out=(held_out,),
    )
