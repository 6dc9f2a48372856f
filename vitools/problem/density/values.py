"""Values that a user gives for a model's latents: checked by name before anything is computed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.problem.density.discrete import index_in_support
from vitools.problem.density.vectorise import split_draws
from vitools.problem.sites import Site, nearest
from vitools.supports import base_support, bounds

SHOWN = 6
"""How many values of a discrete support a message lists."""


def latent_site(latents: Mapping[str, Site], name: str, title: str) -> Site:
    """The latent called ``name``, or an error with the nearest name there is."""
    if name not in latents:
        raise OptionError(
            f"no latent site '{name}' in {title} (latents: {', '.join(latents) or 'none'})."
            f"{nearest(name, latents)}"
        )
    return latents[name]


def checked_draws(
    values: Mapping[str, Tensor], latents: Mapping[str, Site], title: str, complete: bool
) -> tuple[dict[str, Tensor], torch.Size]:
    """``{site: [*S, *shape]}`` as ``({site: [n, *shape]}, S)``.

    Args:
        complete: whether every latent that is not summed out must have a value.
    """
    for name, value in values.items():
        _refuse_unfit(latent_site(latents, name, title), value)
    missing = [k for k, site in latents.items() if not site.is_summed_out and k not in values]
    if complete and missing:
        raise OptionError(
            f"values for {', '.join(map(repr, missing))} are missing: every latent of {title} that "
            "is not summed out needs one."
        )
    if not values:  # only latents to be summed out: one empty draw
        return {}, torch.Size()
    return split_draws(values, {k: len(latents[k].shape) for k in values})


def _refuse_unfit(site: Site, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise OptionError(
            f"site '{site.name}': expected a tensor, got {type(value).__name__}. "
            "Convert it with torch.as_tensor."
        )
    tail = tuple(value.shape[value.dim() - len(site.shape) :])
    if value.dim() < len(site.shape) or tail != tuple(site.shape):
        expected = ", ".join(["*samples", *map(str, site.shape)])
        raise OptionError(
            f"site '{site.name}': expected values of shape [{expected}], got {tuple(value.shape)}."
        )
    if site.support_values is not None and bool((index_in_support(site, value) < 0).any()):
        listed = [str(v.tolist()) for v in site.support_values[:SHOWN]]
        listed += ["…"] if len(site.support_values) > SHOWN else []
        raise OptionError(
            f"site '{site.name}': a given value is not among those it can take "
            f"({', '.join(listed)})."
        )


def out_of_bounds(site: Site, value: Tensor) -> Tensor | None:
    """Which draws ``[n]`` lie beyond a site's bounds; ``None`` for a support without bounds.

    Simplexes and matrices are not checked: rounding alone takes draws out of them.
    """
    if site.is_summed_out or bounds(site.support) == (None, None):
        return None
    inside = base_support(site.support).check(value)
    return ~inside.reshape(len(value), -1).all(-1)
