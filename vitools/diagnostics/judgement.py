"""All figures on one fit, from one set of draws."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.accuracy import Accuracy, measure_accuracy
from vitools.diagnostics.evidence import bound
from vitools.diagnostics.khat import khat_estimate, khat_threshold
from vitools.diagnostics.moments import Moments, moments, quantities
from vitools.diagnostics.verdict import Verdict, reach_verdict
from vitools.posterior import DrawsPosterior, Estimate, GridPosterior, Posterior


@dataclass(frozen=True)
class Judgement:
    """What the judge found.

    Attributes:
        bound, khat: ``None`` for a fit without density.
        accuracy: ``None`` without a reference.
        verdict: grade, reason and advice.
        draws: the judged quantities at the draws used, ``{name: [n, *shape]}``, on the CPU.
        moments: their moments, exact where the fit gives them.
    """

    bound: Estimate | None
    khat: Estimate | None
    accuracy: Accuracy | None
    verdict: Verdict
    draws: dict[str, Tensor]
    moments: dict[str, Moments]


def judge(
    posterior: Posterior,
    reference: Mapping[str, Moments] | None = None,
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> Judgement:
    """Draw once from a fit and compute everything the verdict rests on.

    Args:
        reference: moments to compare with, from :func:`~vitools.diagnostics.moments.moments`.
        num_samples: draws from a fit with a density; a sampler's own draws are all used.
    """
    problem = posterior.problem
    lower: Estimate | None = None
    khat: Estimate | None = None
    with torch.no_grad():
        if isinstance(posterior, DrawsPosterior):
            values = posterior.pooled()
        else:
            values, log_q = posterior.sample_with_log_prob(num_samples, seed)
            if isinstance(posterior, GridPosterior):
                lower, khat = posterior.log_evidence, Estimate(0.0)
            else:
                lower, khat = _evidence(problem.log_joint(values) - log_q, num_samples)
        judged = quantities(problem, values) if values else {}
        draws = {name: value.cpu() for name, value in judged.items()}
        found = moments(posterior, draws)
    accuracy = None if reference is None else measure_accuracy(found, reference)
    verdict = reach_verdict(
        posterior.status,
        detail=posterior.detail,
        bound=lower,
        khat=khat,
        threshold=khat_threshold(num_samples),
        accuracy=accuracy,
    )
    return Judgement(lower, khat, accuracy, verdict, draws, found)


def _evidence(log_weights: Tensor, num_samples: int) -> tuple[Estimate, Estimate | None]:
    """Bound and k̂; the second is left out where a weight is undefined, which the verdict says."""
    log_weights = log_weights.expand(num_samples)  # without continuous latents there is one value
    lower = bound(log_weights)
    usable = bool(torch.isfinite(log_weights).all())
    return lower, khat_estimate(log_weights) if usable else None
