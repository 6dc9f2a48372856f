"""The hyperparameters α¹, α², β of the two-dice model, and the Dirichlet parameters of its q."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitools.errors import OptionError

DEFAULT_ALPHA = 2.0
"""Sides: proper and unimodal, fair dice most likely, no side impossible."""

DEFAULT_BETA = 1.0
"""Faces: uniform over all loadings of a die."""

Hyperparameter = float | Sequence[float] | Sequence[Sequence[float]] | np.ndarray | Tensor


class Concentrations(NamedTuple):
    """Dirichlet parameters of π¹, π² and ρ: of the prior, or of q(π¹) q(π²) ∏_s q(ρ_s).

    Fields:
        alpha1: for π¹, shape [D₁].
        alpha2: for π², shape [D₂].
        beta: for ρ, one row per visible die, shape [S, V] with S = D₁ + D₂ - 1.
    """

    alpha1: Tensor
    alpha2: Tensor
    beta: Tensor


def prior_concentrations(
    sides1: int = 3,
    sides2: int = 4,
    faces: int = 6,
    alpha1: Hyperparameter | None = None,
    alpha2: Hyperparameter | None = None,
    beta: Hyperparameter | None = None,
    *,
    device: torch.device | None = None,
) -> Concentrations:
    """Fill in and check the hyperparameters.

    A number is repeated over all sides (α¹, α²) or all faces of all dice (β); β may also be one
    vector [V] shared by the dice, or a full [S, V]. The dtype is float64, unless tensors are
    given: then it is theirs.

    Args:
        sides1: D₁, sides of the first hidden die.
        sides2: D₂, sides of the second.
        faces: V, faces of each of the S = D₁ + D₂ - 1 visible dice.
        alpha1: α¹, a number or [D₁]; 2 when not given.
        alpha2: α², a number or [D₂]; 2 when not given.
        beta: β, a number, [V] or [S, V]; 1 when not given.
        device: where to put them; that of given tensors otherwise.

    Returns:
        The prior's :class:`Concentrations`.

    Raises:
        OptionError: a size is not a positive integer, or a hyperparameter has the wrong shape or
            is not positive.

    Example:
        >>> prior_concentrations(sides1=2, sides2=2, alpha1=[1.2, 0.8]).alpha1
        tensor([1.2000, 0.8000], dtype=torch.float64)
    """
    prior = traceable_concentrations(sides1, sides2, faces, alpha1, alpha2, beta, device=device)
    for name, value in prior._asdict().items():
        _check_positive(name, value)
    return prior


def traceable_concentrations(
    sides1: int,
    sides2: int,
    faces: int,
    alpha1: Hyperparameter | None,
    alpha2: Hyperparameter | None,
    beta: Hyperparameter | None,
    *,
    device: torch.device | None = None,
) -> Concentrations:
    """:func:`prior_concentrations` without a look into given tensors.

    The model runs inside graph tracers, where no branch may depend on a tensor's values; there
    Pyro's own validation is what meets a negative one.
    """
    for name, size in {"sides1": sides1, "sides2": sides2, "faces": faces}.items():
        check_count(name, size)
    tensors = [value for value in (alpha1, alpha2, beta) if isinstance(value, Tensor)]
    floating = [value.dtype for value in tensors if value.is_floating_point()]
    dtype = reduce(torch.promote_types, floating) if floating else torch.float64
    if device is None and tensors:
        device = tensors[0].device
    num_dice = sides1 + sides2 - 1

    def fill(name: str, value: Hyperparameter | None, default: float, shape: list[int]) -> Tensor:
        value = default if value is None else value
        if not isinstance(value, Tensor):
            try:
                value = np.asarray(value, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise OptionError(f"{name}: expected numbers, got {value!r}.") from error
            _check_positive(name, value)
        given = tuple(value.shape)
        allowed = [tuple(shape[i:]) for i in range(len(shape) + 1)]
        if given not in allowed:
            expected = " or ".join(str(list(size)) for size in allowed[:-1])
            raise OptionError(
                f"{name}: expected a number or shape {expected} for sides1={sides1}, "
                f"sides2={sides2}, faces={faces} (so {num_dice} visible dice), "
                f"got shape {list(given)}."
            )
        return torch.as_tensor(value, dtype=dtype, device=device).expand(shape).contiguous()

    return Concentrations(
        fill("alpha1", alpha1, DEFAULT_ALPHA, [sides1]),
        fill("alpha2", alpha2, DEFAULT_ALPHA, [sides2]),
        fill("beta", beta, DEFAULT_BETA, [num_dice, faces]),
    )


def check_count(name: str, count: int) -> None:
    """Refuse what is not a positive integer."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise OptionError(f"{name}: expected a positive integer, got {count!r}.")


def _check_positive(name: str, value: Tensor | np.ndarray) -> None:
    # NaN fails both comparisons.
    if not bool(((value > 0) & (value < float("inf"))).all()):
        raise OptionError(
            f"{name}: Dirichlet concentrations are positive and finite, got {value.tolist()}."
        )
