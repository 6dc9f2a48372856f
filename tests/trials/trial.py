"""A trial: a model with a guide, written as tutorials write them, and what must come out of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

STAGES = (
    "problem",
    "explain",
    "draw",
    "own_guide",
    "automatic_guide",
    "nuts",
    "arviz",
    "predictive",
)


@dataclass(frozen=True, eq=False)
class Trial:
    """One model of the collection.

    Attributes:
        features: what it has that models may have; no two trials have the same.
        make: the model, its own guide (or ``None``) and the arguments of both.
        latents, observed: the shapes of all sites, by name.
        refused: ``{stage: words}`` of the message by which a stage refuses it.
        notices: words of warnings that it may give, at any stage.
        is_quick: whether its fits belong into the default suite.
    """

    name: str
    features: frozenset[str]
    make: Callable[[], tuple[Callable[..., Any], Any, tuple[Any, ...]]]
    latents: Mapping[str, tuple[int, ...]]
    observed: Mapping[str, tuple[int, ...]]
    refused: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[str] = ()
    is_quick: bool = False


COLLECTION: list[Trial] = []


def trial(
    features: str,
    latents: Mapping[str, tuple[int, ...]],
    observed: Mapping[str, tuple[int, ...]],
    **more: Any,
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Adds a function that makes model, guide and arguments to the collection."""

    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        kinds = frozenset(features.split())
        COLLECTION.append(Trial(make.__name__, kinds, make, latents, observed, **more))
        return make

    return add


def feature_table(trials: Sequence[Trial] = ()) -> str:
    """Features down, models across: ``x`` where a model has it."""
    trials = trials or COLLECTION
    features = sorted(set().union(*(t.features for t in trials)))
    width = max(map(len, features))
    lines = [f"{'feature':<{width}}  {' '.join(f'{i:>2}' for i in range(1, len(trials) + 1))}"]
    for feature in features:
        marks = " ".join(" x" if feature in t.features else " ." for t in trials)
        lines.append(f"{feature:<{width}}  {marks}")
    return "\n".join([*lines, *(f"{i:>2} {t.name}" for i, t in enumerate(trials, 1))])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def counts(*shape: int, rate: float = 3.0, seed: int = 0) -> Tensor:
    return torch.poisson(torch.full(shape, rate), generator=torch.Generator().manual_seed(seed))


def flips(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6).to(
        torch.get_default_dtype()
    )
