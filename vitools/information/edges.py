"""Where Fisher's information has one side only: at the edge of a distribution's own parameters.

At p = 0 the log density of a Bernoulli rises on one side and does not exist on the other; its derivative there
is none, though automatic differentiation returns a number (0, where probabilities are clamped).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.errors import NotSupportedError
from vitools.isolation import validating
from vitools.supports import base_support, bounds

STEP = 1e-3
"""How far a parameter is moved to see whether a number on an edge moves with it."""


def refuse_edge(make: Callable[[Tensor], Distribution], at: Tensor) -> None:
    """Raise where a parameter of the distribution is on the edge of its range, and moves with ``at`` ``[P]``."""
    with validating(False), torch.no_grad():
        made = make(at)
        here = dict(_parameters(made))
        edges = {k: _on_edge(constraint, value) for k, (constraint, value) in here.items()}
        if not any(bool(edge.any()) for edge in edges.values()):
            return
        # different steps, or what is a difference of two parameters would not move
        steps = STEP * (1 + at.abs()) * (1 + torch.arange(len(at)).to(at) / 7)
        moved = dict(_parameters(make(at + steps)))
    for name, edge in edges.items():
        value = here[name][1]
        if bool((edge & (moved[name][1] != value)).any()):
            number = float(value[edge][0])
            raise NotSupportedError(
                f"at: '{name}' of the {type(_bare(made)).__name__} is {number:g} there, the edge of its range: "
                "the likelihood has a slope on one side only, and Fisher's information is not defined. Expected a "
                "point inside; the limit from there is often infinite."
            )


def _bare(p: Any) -> Any:
    while isinstance(getattr(p, "base_dist", None), Distribution):
        p = p.base_dist
    return p


def _parameters(p: Distribution) -> Iterator[tuple[str, tuple[Any, Tensor]]]:
    """Those it was made with, with their constraints: of probabilities and logits one."""
    found = _bare(p)
    for name, constraint in found.arg_constraints.items():
        value = vars(found).get(name)
        if isinstance(value, Tensor) and value.is_floating_point():
            yield name, (constraint, value)


def _on_edge(constraint: Any, value: Tensor) -> Tensor:
    """Which entries are on the edge of their range, or beyond."""
    base = base_support(constraint)
    if base is constraints.simplex:
        return value <= 0
    none = torch.zeros_like(value, dtype=torch.bool)
    if getattr(constraint, "is_discrete", False):
        return none
    low, high = bounds(constraint)
    below = none if low is None else value <= torch.as_tensor(low)
    return below if high is None else below | (value >= torch.as_tensor(high))
