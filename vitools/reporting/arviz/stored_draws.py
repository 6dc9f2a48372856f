"""How much of a fit goes into a report's ``posterior.nc``.

A report is something to send to a colleague, and draws of every latent, replicated data and
log-likelihoods of a large model are not: the size is foretold from the shapes of the sites, and what
would pass :data:`LARGEST` is left out, groups first, draws second.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from vitools.posterior import DrawsPosterior, Posterior
from vitools.problem import Site
from vitools.reporting.arviz.export import DEFAULT_DRAWS, GROUPS

LARGEST = 8_000_000
"""Bytes, before compression."""
FEWEST_DRAWS = 100


@dataclass(frozen=True)
class StoredDraws:
    """Options for :func:`~vitools.reporting.arviz.export.to_arviz`, and what to say of them.

    Attributes:
        options: ``num_samples`` and ``include``, as far as they differ from the defaults.
        note: what was left out, in words; empty where nothing was.
    """

    options: dict[str, Any]
    note: str = ""


def stored_draws(posterior: Posterior, num_samples: int | None = None) -> StoredDraws:
    """What to store of a fit: the posterior, then each further group for which there is room.

    Args:
        num_samples: as many as the user asked for; then all groups are stored, whatever their size.
    """
    if num_samples is not None:
        return StoredDraws({"num_samples": num_samples})
    available = DEFAULT_DRAWS
    if isinstance(posterior, DrawsPosterior):
        available = math.prod(next(iter(posterior.draws.values())).shape[:2])
    latents, further = _bytes_per_draw(posterior)
    room = LARGEST - available * latents
    left_out = []
    for group, size in further.items():
        if available * size > room:
            left_out.append(group)
        else:
            room -= available * size
    if not left_out:
        return StoredDraws({})
    kept = min(available, max(FEWEST_DRAWS, LARGEST // max(1, latents)))
    options: dict[str, Any] = {"include": [name for name in GROUPS if name not in left_out]}
    note = f"without {', '.join(left_out)}"
    if kept < available:
        options["num_samples"] = kept
        note = f"{kept} of {available} draws, {note}"
    megabytes = available * (latents + sum(further.values())) / 1e6
    return StoredDraws(
        options,
        f"{note}: all would take {megabytes:.0f} MB. For the rest, ask for a number of draws "
        "(--draws), or use to_arviz(fit, num_samples, include=...) in Python.",
    )


def _bytes_per_draw(posterior: Posterior) -> tuple[int, dict[str, int]]:
    """Of the posterior, and of every other group over draws, the most wanted first."""
    problem = posterior.problem
    latents = sum(map(_bytes, (*problem.latents.values(), *problem.deterministics.values())))
    data = sum(map(_bytes, problem.observed.values()))
    values = posterior.sample(1)
    with torch.no_grad():
        units = problem.pointwise_log_likelihood(values).values()
    return latents, {
        "log_likelihood": sum(value.numel() * value.element_size() for value in units),
        "log_prior": 8 * len(problem.drawn),
        "posterior_predictive": data,
        "prior": latents,
        "prior_predictive": data,
    }


def _bytes(site: Site) -> int:
    return site.shape.numel() * site.dtype.itemsize
