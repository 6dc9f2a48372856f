"""Ways to fit a model with an encoder: as it is, and the rivals a comparison puts beside it.

All are trained alike, ended by a bound on data kept aside for that (``Target.validation``), and all
are built for the images and the number of latents of the VAE they are compared with.
"""

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyro
import torch

from vitools.errors import NotSupportedError
from vitools.isolation import seeded
from vitools.problem import Problem

if TYPE_CHECKING:
    from vitools.cli.target import Target
    from vitools.models.vae.base import DeepModel
    from vitools.models.vae.model import VAE
    from vitools.posterior import GuidePosterior, Posterior

IMPORTANCE_DRAWS = 5
EVERY, PATIENCE, MAX_STEPS = 1000, 3, 12_000
"""Of steps: how often the validation bound is looked at, and at most."""


def train(
    target: "Target",
    network: "DeepModel",
    *,
    objective: Callable[..., Any] | None = None,
    seed: int,
    progress: Any,
) -> "GuidePosterior":
    """The best fit of ``network`` on the target's data by the validation bound."""
    from vitools.engines.svi.validation import svi_validated

    began = time.perf_counter()
    problem = Problem(network.model, *target.problem.args, **target.problem.kwargs)
    fit = svi_validated(
        problem,
        network.guide,
        Problem(network.model, *target.validation),
        every=EVERY,
        patience=PATIENCE,
        max_steps=MAX_STEPS,
        learning_rate=target.learning_rate,
        objective=objective,
        seed=seed,
        progress=progress,
    )
    fit.seconds = time.perf_counter() - began  # of the whole run, not of its best part alone
    return fit


def iwae(target: "Target", *, seed: int, progress: Any, start: Any) -> "GuidePosterior":
    """The same networks under the importance-weighted bound."""
    from vitools.engines.objectives import ImportanceWeighted

    network = _network(target, "iwae")
    weighted = ImportanceWeighted(IMPORTANCE_DRAWS)
    return train(target, network, objective=weighted, seed=seed, progress=progress)


def hierarchical(target: "Target", *, seed: int, progress: Any, start: Any) -> "GuidePosterior":
    """Two layers of latents, the upper one the VAE's, the lower one twice as wide.

    The networks next to the images have the VAE's hidden sizes, those above them half of these.
    """
    from vitools.models.hierarchical_vae import HierarchicalVAE

    vae = _vae(target, "hierarchical")
    widths = _widths(vae)
    network = HierarchicalVAE(
        vae.num_pixels,
        (2 * vae.latent_dim, vae.latent_dim),
        (widths, tuple(max(1, width // 2) for width in widths)),
        likelihood=vae.likelihood,
        seed=seed,
    )
    return train(target, _alike(network, vae), seed=seed, progress=progress)


def factor_analysis(target: "Target", *, seed: int, progress: Any, start: Any) -> "GuidePosterior":
    """As many latents and a linear decoder: of continuous pixels exact, of binary ones trained."""
    from vitools.models.vae.model import VAE

    vae = _vae(target, "factor-analysis")
    if vae.likelihood == "gaussian":
        return _exact_factor_analysis(target, vae)
    if vae.likelihood != "bernoulli":
        raise NotSupportedError(
            f"method factor-analysis is for binary or continuous pixels, not {vae.likelihood} ones."
        )
    vae.decoder = VAE(vae.num_pixels, vae.latent_dim, (), seed=seed).decoder
    return train(target, _alike(vae, target.untrained), seed=seed, progress=progress)


def _exact_factor_analysis(target: "Target", vae: "VAE") -> "GuidePosterior":
    from vitools.models.vae.evaluation import baseline
    from vitools.posterior import GuidePosterior, Status

    began = time.perf_counter()
    images = target.problem.args[0]
    fitted = baseline.factor_analysis(images, vae.latent_dim)
    network = _alike(baseline.linear_vae(fitted), vae)
    with pyro.get_param_store().scope(), seeded(0):
        network.guide(images[:1])
        network.model(images[:1])
        params = pyro.get_param_store().get_state()
    return GuidePosterior(
        Problem(network.model, *target.problem.args, **target.problem.kwargs),
        network.guide,
        params,
        engine="closed form",
        status=Status.EXACT,
        detail="maximum likelihood, its encoder the exact posterior",
        seconds=time.perf_counter() - began,
    )


def has_encoder(fit: "Posterior") -> bool:
    """Whether a fit's guide is a method of networks, which serve data it was not trained on."""
    from vitools.models.vae.base import DeepModel

    return isinstance(getattr(getattr(fit, "guide", None), "__self__", None), DeepModel)


def _network(target: "Target", method: str) -> "DeepModel":
    """A copy of the networks as they were before any fit, so that all rivals start alike."""
    from vitools.models.vae.base import DeepModel

    network = copy.deepcopy(target.untrained)
    if not isinstance(network, DeepModel) or not target.validation:
        raise NotSupportedError(
            f"method {method} is for models with an encoder and held-out data (vae); "
            f"'{target.problem.name}' is none."
        )
    return network


def _vae(target: "Target", method: str) -> "VAE":
    from vitools.models.vae.model import VAE

    network = _network(target, method)
    if not isinstance(network, VAE):
        raise NotSupportedError(
            f"method {method} is a rival of the plain VAE; the model is a {type(network).__name__}."
        )
    return network


def _widths(vae: "VAE") -> tuple[int, ...]:
    """Hidden sizes of its encoder; one layer of 128 where that has none (linear, convolutional)."""
    layers = [layer for layer in vae.encoder.modules() if isinstance(layer, torch.nn.Linear)]
    return tuple(layer.out_features for layer in layers[:-1]) or (128,)


def _alike(network: Any, vae: "VAE") -> Any:
    """On the same device, with the same dtype."""
    return network.to(next(vae.parameters()))
