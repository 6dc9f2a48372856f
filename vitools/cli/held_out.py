"""Comparing models with encoders: held-out figures of each fit, and pictures of them together."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitools.cli.deep_methods import has_encoder
from vitools.diagnostics.weights.encoder_khat import encoder_khats
from vitools.diagnostics.weights.khat import khat_threshold
from vitools.errors import NotSupportedError, OptionError
from vitools.files.names import PRIOR_SAMPLES, RECONSTRUCTIONS
from vitools.models.vae import average, elbo_terms, latent_information
from vitools.models.vae.evaluation.evaluation import Average, log_weights_by_chunk
from vitools.models.vae.evaluation.latent_use import ACTIVE, unit_variances
from vitools.posterior import Estimate, Posterior
from vitools.reporting.held_out.held_out import HeldOutComparison, HeldOutFit
from vitools.reporting.held_out.report import write_held_out_report
from vitools.reporting.page.page import Origin

if TYPE_CHECKING:
    from vitools.cli.target import Target

NUM_SAMPLES = 1000
"""Draws for each datum's importance-weighted bound and k̂."""

MOST_DATA = 1000
"""Of the held-out data; the first of more, whose order is random, or that of their makers."""

SHOWN = 12
"""Images in a row of a picture."""


def compare_held_out(
    fits: Mapping[str, Posterior],
    held_out: tuple[Tensor, ...],
    seed: int,
    failures: dict[str, Exception],
) -> HeldOutComparison:
    """Judge fits of models that take the same data by data they were not trained on.

    Fits that cannot be judged, such as those without an encoder, which know nothing of other data,
    are added to ``failures``.

    Raises:
        KeyboardInterrupt: Ctrl-C; its attribute ``comparison`` is that of the fits judged so far,
            ``None`` if none was.
    """
    held_out = tuple(part[:MOST_DATA] for part in held_out)
    judged = {}
    try:
        for name, fit in fits.items():
            try:
                judged[name] = _judged(fit, held_out, seed)
            except Exception as error:  # networks' own errors share no type
                failures[name] = error
    except KeyboardInterrupt as interrupt:
        interrupt.comparison = _compared(judged) if judged else None  # type: ignore[attr-defined]
        raise
    if not judged:
        errors = [failures[name] for name in fits]
        if all(isinstance(error, NotSupportedError) for error in errors):
            raise OptionError("no fit has an encoder to judge on held-out data; add own-guide.")
        raise next(error for error in errors if not isinstance(error, NotSupportedError))
    return _compared(judged)


def _compared(judged: dict[str, HeldOutFit]) -> HeldOutComparison:
    kind = _network_of(next(fit.fit for fit in judged.values())).rows
    return HeldOutComparison(judged, kind, NUM_SAMPLES, khat_threshold(NUM_SAMPLES))


def write(
    comparison: HeldOutComparison, target: "Target", folder: Path, origin: Origin, seed: int
) -> list[Path]:
    """The report with its pictures: images through each fit, samples of each, and the model's own."""
    from vitools.models.vae.pictures import plot_rows, sample_means

    networks = {name: _network_of(row.fit) for name, row in comparison.fits.items()}
    images, *conditions = target.held_out
    figures: dict[str, Any] = {}
    subjects: dict[str, str] = {}
    is_square = math.isqrt(images.shape[1]) ** 2 == images.shape[1]
    if comparison.rows == "images" and is_square and not conditions:
        images = images[:SHOWN]
        rows = {name: network.reconstruct(images) for name, network in networks.items()}
        samples = {name: sample_means(network, SHOWN, seed) for name, network in networks.items()}
        figures = {
            RECONSTRUCTIONS: plot_rows({"image": images} | rows),
            PRIOR_SAMPLES: plot_rows(samples),
        }
    if target.pictures and target.guide.__self__ in networks.values():
        own = [name for name, network in networks.items() if network is target.guide.__self__]
        more = target.pictures(comparison.fits[own[0]].fit)
        subjects = dict.fromkeys(more.keys() - figures.keys(), own[0])
        figures = more | figures
    return write_held_out_report(comparison, folder, figures, origin, subjects)


def _network_of(fit: Posterior) -> Any:
    """The networks that a fit trained in place."""
    if not has_encoder(fit):
        raise NotSupportedError(
            "it has no encoder, and so says nothing of data it was not trained on. Leave it out, or "
            "compare it on the training data with a model and --guide of your own."
        )
    return fit.guide.__self__  # type: ignore[attr-defined]


def _judged(fit: Posterior, data: tuple[Tensor, ...], seed: int) -> HeldOutFit:
    model = _network_of(fit)
    terms = elbo_terms(model, *data, seed=seed)
    chunks = log_weights_by_chunk(model, *data, num_samples=NUM_SAMPLES, seed=seed)
    log_weights = torch.cat([chunk.total for chunk in chunks], dim=1)
    variances = unit_variances(model, *data, seed=seed)
    information = latent_information(model, *data, seed=seed)
    return HeldOutFit(
        fit=fit,
        bounds=log_weights.logsumexp(0) - math.log(NUM_SAMPLES),
        elbo=_estimate(average(terms.elbo)),
        reconstruction=_estimate(average(terms.reconstruction)),
        kls={layer: _estimate(average(kl)) for layer, kl in terms.kls.items()},
        active={layer: (int((v > ACTIVE).sum()), len(v)) for layer, v in variances.items()},
        information=_estimate(information.value),
        khat_above=encoder_khats(log_weights).share_above,
        num_parameters=sum(weight.numel() for weight in model.parameters()),
    )


def _estimate(found: Average) -> Estimate:
    return Estimate(*found)
