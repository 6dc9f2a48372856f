"""Does a guide's distribution cover a latent's support, and no more than that?

Outside the support the model's density is zero and the bound minus infinity. A part of the support
that the guide never draws is missing from the fit, and no diagnostic that uses its draws can tell.
"""

from typing import Any

import torch
from torch import Tensor

from vitools.distributions.layers import base_distribution
from vitools.errors import OptionError, VitoolsWarning
from vitools.problem.ends import Ends, ends_of, ends_of_support
from vitools.problem.sites import Site, support_of
from vitools.supports import base_support, bounds

ROUNDING = 1e-4  # of an interval's length: sigmoids in float32 end short of 0 and 1

MOST_OUTSIDE = 0.1
"""The mass outside a prior's support from which a guide is of another support, not a little wider."""


def refuse_other_support(title: str, site: Site, node: Any) -> str | None:
    """Raise for draws outside a site's support, or a :class:`VitoolsWarning` for a part of it.

    Returns:
        What to say of a guide that is wider than the prior, its mass outside being small.
    """
    fn = node["fn"]
    kind = type(base_distribution(fn)).__name__
    if support_of(fn) is None:  # all there is to go by is the draw
        _compare_kinds(title, site, node, kind)
        return None
    if fn.support.is_discrete != site.is_discrete:
        words = ("continuous", "discrete")
        raise OptionError(
            f"{title} draws '{site.name}' outside its support: {kind} is "
            f"{words[fn.support.is_discrete]}, the model's {site.distribution} is "
            f"{words[site.is_discrete]}."
        )
    theirs = ends_of_support(site.support)
    ours = ends_of(fn)
    if ours is None or theirs is None or not _fit(*ours, *theirs):
        _compare_kinds(title, site, node, kind)
        return None
    (low, high), (least, most) = ours, theirs
    slack = ROUNDING * torch.where((most - least).isfinite(), most - least, 1.0)
    beyond, short = _any(low < least - slack, high > most + slack), None
    if _any(low > least + slack, high < most - slack):
        short = f"{kind} gives values in {_interval(ours)} of {_interval(theirs)}"
    mass = mass_outside(site, fn) if beyond else 0.0
    if beyond and (mass is None or mass > MOST_OUTSIDE):
        raise OptionError(
            f"{title} draws '{site.name}' outside its support: {kind} gives values in "
            f"{_interval(ours)}, the model's {site.distribution} lives on {_interval(theirs)}. "
            "Choose a distribution over that support, or transform the draws (LogNormal for "
            "positive ones)."
        )
    if short is not None:
        raise _narrower(title, site, short)
    if not beyond:
        return None
    return (
        f"{kind} of '{site.name}' is wider than the model's {site.distribution} on "
        f"{_interval(theirs)}: mass {mass:.2g} outside, where the density is zero"
    )


def mass_outside(site: Site, fn: Any) -> float | None:
    """The largest probability that an element of a draw is outside its site's support.

    ``None`` where the support has no ends, or the distribution does not know its cumulative
    probabilities, or has another element count than the site.
    """
    ends = ends_of_support(site.support)
    if ends is None:
        return None
    base = base_distribution(fn)
    try:
        shape = torch.broadcast_shapes(*(end.shape for end in ends), base.batch_shape)
        least, most = (end.expand(shape) for end in ends)
        below = torch.where(least.isfinite(), base.cdf(_finite(base, least)), 0.0)
        above = torch.where(most.isfinite(), 1 - base.cdf(_finite(base, most)), 0.0)
    except (NotImplementedError, RuntimeError, ValueError):
        return None
    return float((below + above).detach().clamp(min=0.0).max())


def outside_in_words(site: Site, fn: Any) -> str:
    """How much of a guide that is wider than its site's prior lies beyond it."""
    ends = ends_of_support(site.support)
    mass = mass_outside(site, fn)
    share = "unknown" if mass is None else f"{mass:.2g}"
    return f"mass of '{site.name}' outside {'' if ends is None else _interval(ends)}: {share}"


def _finite(base: Any, end: Tensor) -> Tensor:
    """An end of a support as a value that the distribution takes: its own least where it is beyond."""
    inside = torch.where(end.isfinite(), end, torch.ones_like(end))
    least = bounds(base.support)[0]
    return inside if least is None else torch.maximum(inside, torch.as_tensor(least) + 1e-12)


def _any(*conditions: Tensor) -> bool:
    return any(bool(condition.any()) for condition in conditions)


def _compare_kinds(title: str, site: Site, node: Any, kind: str) -> None:
    """Simplexes, matrices and the like: by what they are, else by the draw."""
    whole = ends_of_support(site.support)
    if whole is not None and not _fit(node["value"], *whole):
        return
    if not bool(base_support(site.support).check(node["value"]).all()):
        raise OptionError(
            f"{title} draws '{site.name}' outside its support: expected values in {site.support}, "
            f"got a {kind} that leaves it. Choose a distribution over that support, or transform "
            "the draws."
        )
    if support_of(node["fn"]) is not None and whole is not None and ends_of(node["fn"]) is None:
        raise _narrower(title, site, f"{kind} gives values in {node['fn'].support}")


def _narrower(title: str, site: Site, words: str) -> VitoolsWarning:
    return VitoolsWarning(
        f"{title} draws '{site.name}' from a part of its support only ({words}). What lies outside "
        "that is missing from the fit, and its own draws cannot tell how much that is."
    )


def _fit(*ends: Tensor) -> bool:
    """Whether shapes agree; ends of a minibatch's elements do not with those of all."""
    try:
        torch.broadcast_shapes(*(end.shape for end in ends))
    except RuntimeError:
        return False
    return True


def _interval(ends: Ends) -> str:
    """In words, ``(0, inf)``; the widest of many."""
    return f"({float(ends[0].min()):.4g}, {float(ends[1].max()):.4g})"
