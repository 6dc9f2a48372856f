"""What a problem knows of its model: sites and plates."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from pyro.distributions import Delta, Dirichlet, MaskedDistribution, Unit
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import constraints

from vitools.distributions.layers import base_distribution
from vitools.problem.ends import image_of
from vitools.supports import base_support


@dataclass(frozen=True)
class Plate:
    """An independence context: ``dim`` counts from the right.

    A batch dim that no ``pyro.plate`` spans counts as a plate of its own, ``<site>_dim_<i>``.
    """

    name: str
    size: int
    dim: int
    subsample_size: int


@dataclass(frozen=True)
class Site:
    """One sample statement of the model.

    A value has shape ``batch_shape + event_shape``; ``plates[d]`` names the plate of batch
    dim ``d`` (``None`` for a dim of size 1 that belongs to none).

    Attributes:
        event_dim: number of dims on the right that are one draw.
        support: the constraint that values meet; ``None`` of a factor.
        is_discrete: whether it has no density but probabilities.
        is_observed: whether it has data.
        dtype: number type of its values.
        device: where its values are.
        distribution: name of the distribution's class, under ``to_event``, ``mask``, ``expand``.
        scale: the factor of a surrounding ``poutine.scale``; 1 for none.
        value: the data of an observed site.
        support_values: ``[K, *event_shape]``, all values of a discrete latent; ``None`` where
            they cannot be listed.
        states: of a latent trajectory of a Markov chain of discrete states that densities sum out.
    """

    name: str
    distribution: str
    shape: torch.Size
    event_dim: int
    plates: tuple[str | None, ...]
    support: Any
    is_discrete: bool
    is_observed: bool
    dtype: torch.dtype
    device: torch.device
    scale: float | Tensor = 1.0
    value: Tensor | None = field(default=None, repr=False)
    support_values: Tensor | None = field(default=None, repr=False)
    states: int = 0

    @property
    def is_summed_out(self) -> bool:
        """Whether densities sum it out: a discrete latent with a list of values, or a trajectory."""
        return self.support_values is not None or self.states > 0

    @property
    def batch_shape(self) -> torch.Size:
        return self.shape[: len(self.shape) - self.event_dim]

    @property
    def event_shape(self) -> torch.Size:
        return self.shape[len(self.shape) - self.event_dim :]


def support_of(fn: Any) -> Any:
    """A distribution's support; ``None`` where its class does not say one."""
    try:
        support = fn.support
    except (NotImplementedError, AttributeError):
        return None
    base = base_distribution(fn)
    if (
        type(base).__name__ == "TransformedDistribution"
        and base_support(support) is constraints.real
    ):
        image = image_of(base)
        if image is not None:
            return constraints.independent(image, fn.event_dim) if fn.event_dim else image
    return support


def is_subsample(node: Mapping[str, Any]) -> bool:
    """Whether a trace node is a plate's choice of indices rather than a site of the model."""
    return isinstance(node["fn"], _Subsample)


def is_factor(node: Mapping[str, Any]) -> bool:
    """Whether a trace node is a ``pyro.factor`` statement."""
    return isinstance(base_distribution(node["fn"]), Unit)


def is_deterministic(node: Mapping[str, Any]) -> bool:
    """Whether a trace node is a ``pyro.deterministic`` statement (reparameterisers make some too)."""
    if node["infer"].get("_deterministic"):
        return True
    fn = node["fn"]
    if not (node["is_observed"] and isinstance(base_distribution(fn), Delta)):
        return False
    masked = isinstance(fn, MaskedDistribution) and fn._mask is False
    return masked or base_distribution(fn).v is node["value"]  # observed to be what it is


def is_delta(node: Mapping[str, Any]) -> bool:
    """Whether a trace node can take one value only."""
    return isinstance(base_distribution(node["fn"]), Delta) or is_one_corner(node["fn"])


def is_one_corner(fn: Any) -> bool:
    """Whether it is a Dirichlet of size one, whose only value is 1."""
    fn = base_distribution(fn)
    return isinstance(fn, Dirichlet) and fn.event_shape[-1] == 1


def nearest(word: str, known: Any) -> str:
    """A hint for a mistyped name: ``" Did you mean 'rho'?"`` or nothing."""
    found = nearest_name(word, known)
    return f" Did you mean '{found}'?" if found else ""


def nearest_name(word: str, known: Any) -> str | None:
    """The known name that a mistyped one was probably meant to be."""
    names = {str(name).casefold(): str(name) for name in known}
    match = get_close_matches(str(word).casefold(), names, n=1, cutoff=0.5)
    return names[match[0]] if match else None


def listed(names: Collection[str], most: int = 6) -> str:
    """``a, b, c``; of many the first and how many more there are."""
    shown = list(names)
    if len(shown) > most:
        shown = [*shown[: most - 1], f"and {len(shown) - most + 1} more"]
    return ", ".join(shown)
