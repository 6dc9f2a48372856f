"""Improper priors (``ImproperUniform``): flat densities, which have no draws.

Engines need starting points all the same. A standard normal on the reals, mapped to the support,
stands in: it says where to begin and nothing else. It does so too where a model is read at a draw of
its prior and the draw is beyond all numbers: one of Gamma(1e-3, 1e-3) is a precision of 1e-38.
"""

from functools import reduce
from typing import Any

import torch
from pyro.distributions import Delta, ImproperUniform, Unit
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vitools.distributions.layers import base_distribution
from vitools.errors import NotSupportedError
from vitools.supports import from_reals


def is_improper(fn: Any) -> bool:
    """Whether a site's distribution is a flat density on its whole support."""
    return isinstance(base_distribution(fn), ImproperUniform)


def float_dtype(arguments: Any) -> torch.dtype:
    """The widest floating dtype among the tensors of a model's arguments, else torch's default."""
    leaves = (leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
    kinds = [leaf.dtype for leaf in leaves if leaf.is_floating_point()]
    return reduce(torch.promote_types, kinds) if kinds else torch.get_default_dtype()


def stand_in(fn: Any, dtype: torch.dtype, sample_shape: tuple[int, ...] = ()) -> Tensor:
    """Values ``[*sample_shape, *fn.shape()]`` in the support, from torch's global generator."""
    transform = from_reals(fn.support)
    shape = transform.inverse_shape(fn.shape())
    return transform(torch.randn((*sample_shape, *shape), dtype=dtype))


EXTREME = 1e8
"""Size of a draw from which a model may well overflow."""


class StandIns(Messenger):
    """Gives latents with an improper prior a value where no other handler does.

    It must be the outermost handler, which is asked last.

    Args:
        arguments: the model's, which say the dtype; an improper prior has none of its own.
    """

    def __init__(self, arguments: Any) -> None:
        super().__init__()
        self.dtype = float_dtype(arguments)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and is_improper(msg["fn"]):
            msg["value"] = stand_in(msg["fn"], self.dtype)


class ModerateDraws(StandIns):
    """Gives every continuous latent such a value, proper prior or not."""

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["value"] is None and _has_a_stand_in(msg["fn"]):
            msg["value"] = stand_in(msg["fn"], msg["fn"]().dtype)


class ExtremeDraws(Messenger):
    """Watches for latents from whose values a model may well overflow: not for mapped runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if not msg["is_observed"] and isinstance(value, Tensor) and value.is_floating_point():
            self.found |= not bool((value.abs() < EXTREME).all())


def _has_a_stand_in(fn: Any) -> bool:
    """Whether it is the prior of a continuous latent on a support that the reals map to."""
    base = base_distribution(fn)
    if not isinstance(base, TorchDistributionMixin) or isinstance(base, Delta | Unit):
        return False
    if base.support.is_discrete:
        return False
    try:
        from_reals(fn.support)
    except NotImplementedError:
        return False
    return True


def refuse_improper(name: str, fn: Any) -> None:
    """Raise where a draw from the prior itself is asked for."""
    if is_improper(fn):
        raise NotSupportedError(
            f"site '{name}' has an improper prior ({type(base_distribution(fn)).__name__}), which "
            "cannot be drawn from. Give it a proper prior, or give its draws."
        )
