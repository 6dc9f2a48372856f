"""Latent sites that no engine could fit, refused by name with what to write instead."""

from typing import Any

from pyro.distributions import MaskedDistribution

from vitools.distributions.layers import base_distribution, layers_of
from vitools.errors import ModelError
from vitools.problem.sites import Site
from vitools.supports import from_reals


def refuse_unfit_latent(site: Site, fn: Any) -> None:
    """Raise :class:`ModelError` for a latent without a density, a map from the reals, or an end."""
    if any(isinstance(layer, MaskedDistribution) for layer in layers_of(fn)):
        raise ModelError(
            f"site '{site.name}' is a latent with a mask inside its distribution, which leaves "
            "the masked entries without a density. Mask the observations that use it instead."
        )
    if site.support is None:
        kind = type(base_distribution(fn)).__name__
        raise ModelError(
            f"site '{site.name}' is a latent drawn from {kind}, whose class does not say which values "
            f"it takes: give it a support, e.g. support = torch.distributions.constraints.real in "
            f"class {kind}."
        )
    if site.is_discrete:
        if base_distribution(fn).has_enumerate_support:  # others are for a guide to draw
            _refuse_unenumerable(site, fn)
        return
    try:
        from_reals(site.support)
    except NotImplementedError:
        raise ModelError(
            f"site '{site.name}' ({site.distribution}) has support {site.support}, to which no map "
            "from the reals is known. Build it from latents on simpler supports."
        ) from None


def _refuse_unenumerable(site: Site, fn: Any) -> None:
    title = f"site '{site.name}' ({site.distribution})"
    base = base_distribution(fn)
    if site.event_dim > base.event_dim:
        raise ModelError(
            f"{title} is a discrete latent made one event by to_event, so its entries would have to "
            "be enumerated jointly. Put it in a pyro.plate instead."
        )
    outside = [size for p, size in zip(site.plates, site.batch_shape, strict=True) if p is None]
    if any(size > 1 for size in outside):
        raise ModelError(
            f"{title} is a discrete latent of batch shape {tuple(site.batch_shape)} outside any "
            "plate, so nothing says that its entries are independent. Put it in a pyro.plate."
        )
    try:
        fn.enumerate_support(expand=False)
    except NotImplementedError as error:
        raise ModelError(
            f"{title} is a discrete latent whose entries differ in support, which cannot be "
            f"enumerated ({error}). Give all the largest support."
        ) from error
