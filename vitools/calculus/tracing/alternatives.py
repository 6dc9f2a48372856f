"""Which engine fits a model that has no closed-form updates, and why that one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.errors import NotConjugateError, clause

MANY = 2000
"""Unknowns from which NUTS takes long and a covariance of all of them is large."""


@contextmanager
def alternative_named(trace: ModelTrace) -> Iterator[None]:
    """Adds to a refusal inside the block which engine fits the model."""
    try:
        yield
    except NotConjugateError as error:
        raise NotConjugateError(f"{clause(error)}; {alternative(trace)}", error.sites) from error


def alternative(trace: ModelTrace) -> str:
    """The engines that fit this model, with the reason."""
    latents = [site for site in trace.sites.values() if site.is_latent]
    unlisted = [site for site in latents if _is_count(site)]
    if unlisted:
        return (
            f"svi() with a guide that draws {_named(unlisted)} fits it: a count has no list of values "
            "to sum over, and nuts() would need its derivative"
        )
    discrete = [site for site in latents if site.family is not None and site.family.is_discrete]
    size = sum(math.prod(site.shape) for site in latents if site not in discrete)
    summed = f", with {_named(discrete)} summed out exactly" if discrete else ""
    if size > MANY:
        return f"svi() fits it by the gradient of its density{summed}; {size} unknowns are many for nuts()"
    return f"svi() and nuts() fit it by the gradient of its density{summed}"


def _is_count(site: TracedSite) -> bool:
    """Whether the site is discrete without a list of its values."""
    return site.fn.support.is_discrete and not site.fn.has_enumerate_support


def _named(sites: list[TracedSite]) -> str:
    names = [repr(site.name) for site in sites]
    return ", ".join(names if len(names) <= 4 else [*names[:2], "…", names[-1]])
