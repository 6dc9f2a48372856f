"""What two dice cannot identify, and what remains identifiable.

Four maps can leave p(x, z, π, ρ) unchanged: swapping the hidden dice, reversing both
(i → D₁-1-i, k → D₂-1-k, s → S-1-s), doing both, and nothing. Which of them do depends on the
prior; together they form a group. They are the symmetries of the *model*; the likelihood has more
copies, wherever w = π¹ * π² can be relabelled or factorised differently (two dice of Sicherman),
and for those no permutation of the sites exists. So posteriors are compared on
:func:`invariants`, which no relabelling changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.models.two_dice.prior import Hyperparameter, prior_concentrations
from vitools.models.two_dice.updates import sum_distribution

CONTINUOUS = ("pi1", "pi2", "rho")


@dataclass(frozen=True)
class Symmetry:
    """One relabelling of the hidden throws; call it on a dictionary of site values.

    ``pi1`` [..., D₁], ``pi2`` [..., D₂], ``rho`` [..., S, V] and, if present, ``z1`` and ``z2``
    of any shape are relabelled; other entries are passed on. Each symmetry is its own inverse.

    Attributes:
        swap: exchange the two hidden dice.
        reverse: count the sides of both, and the visible dice, from the other end.
    """

    swap: bool
    reverse: bool

    def __call__(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The relabelled copy of ``values``."""
        _require(values, CONTINUOUS)
        result = dict(values)
        if self.reverse:
            result["pi1"], result["pi2"] = values["pi1"].flip(-1), values["pi2"].flip(-1)
            result["rho"] = values["rho"].flip(-2)
            for throw, sides in (("z1", "pi1"), ("z2", "pi2")):
                if throw in values:
                    result[throw] = values[sides].shape[-1] - 1 - values[throw]
        if self.swap:
            for first, second in (("pi1", "pi2"), ("z1", "z2")):
                exchanged = {first: result.get(second), second: result.get(first)}
                result.update({name: v for name, v in exchanged.items() if v is not None})
        return result


def symmetries(
    sides1: int = 3,
    sides2: int = 4,
    faces: int = 6,
    alpha1: Hyperparameter | None = None,
    alpha2: Hyperparameter | None = None,
    beta: Hyperparameter | None = None,
) -> list[Symmetry]:
    """The relabellings that leave this model's joint density unchanged, the identity first.

    A relabelling does so exactly if it maps the prior's concentrations to themselves: swapping
    needs α¹ = α², reversal palindromic α¹, α² and β, both together α¹ = reversed α² and
    palindromic β.

    Example:
        >>> [(g.swap, g.reverse) for g in symmetries(sides1=3, sides2=4)]
        [(False, False), (False, True)]
        >>> len(symmetries(sides1=3, sides2=3)), len(symmetries(2, 3, alpha1=[1.0, 2.0]))
        (4, 1)
    """
    prior = prior_concentrations(sides1, sides2, faces, alpha1, alpha2, beta)
    values = dict(zip(CONTINUOUS, prior, strict=True))
    group = []
    for swap in (False, True):
        for reverse in (False, True):
            element = Symmetry(swap, reverse)
            copy = element(values)
            if all(torch.equal(copy[name], values[name]) for name in CONTINUOUS):
                group.append(element)
    return group


def match(
    draws: dict[str, Tensor],
    reference: dict[str, Tensor],
    group: Sequence[Symmetry],
    *,
    together: bool = False,
) -> dict[str, Tensor]:
    """Move each draw to its symmetric copy closest to a reference.

    Closest in Σ (difference)² over ``pi1``, ``pi2`` and ``rho``.

    Args:
        draws: site values with any leading sample dims: ``pi1`` [..., D₁], ``pi2`` [..., D₂],
            ``rho`` [..., S, V], and others.
        reference: the same three sites without sample dims, for example the truth or the mean of
            another posterior.
        group: the copies to choose from, from :func:`symmetries`.
        together: choose one copy for all draws (where they come from one mode, as CAVI's do)
            rather than one for each.

    Returns:
        ``draws`` with each draw replaced by its chosen copy.

    Example:
        >>> truth = {"pi1": torch.tensor([0.2, 0.8]), "pi2": torch.tensor([0.3, 0.7]),
        ...          "rho": torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])}
        >>> group = symmetries(2, 2, 2)
        >>> copy = group[1](truth)  # reversed
        >>> torch.equal(match(copy, truth, group)["rho"], truth["rho"])
        True
    """
    _require(draws, CONTINUOUS)
    _require(reference, CONTINUOUS)
    copies = [element(draws) for element in group]
    distances = torch.stack([_distance(copy, reference) for copy in copies])
    if together:
        return copies[int(distances.flatten(1).sum(1).argmin())]
    chosen = distances.argmin(0)
    result = dict(draws)
    for index, copy in enumerate(copies):
        here = chosen == index
        for name, value in copy.items():
            mask = here.reshape(here.shape + (1,) * (value.ndim - here.ndim))
            result[name] = torch.where(mask, value, result[name])
    return result


def _distance(values: dict[str, Tensor], reference: dict[str, Tensor]) -> Tensor:
    """Σ over the continuous sites of squared differences, shape of the leading dims."""
    return (
        (values["pi1"] - reference["pi1"]).square().sum(-1)
        + (values["pi2"] - reference["pi2"]).square().sum(-1)
        + (values["rho"] - reference["rho"]).square().sum((-2, -1))
    )


def invariants(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Functions of (π¹, π², ρ) that no relabelling of the hidden dice changes.

    With w = π¹ * π², the distribution of the sum:

    - ``roll_probability``: Σ_s w_s ρ_sv, the next roll's face, shape [..., V].
    - ``pair_probability``: Σ_s w_s ρ_su ρ_sv, two rolls of the same new row, shape [..., V, V].
    - ``w_sorted``: w in decreasing order, how often each visible die is rolled, shape [..., S].

    Args:
        values: ``pi1`` [..., D₁], ``pi2`` [..., D₂], ``rho`` [..., S, V]; others are ignored.

    Returns:
        The three, by name. The first two are predictive probabilities of data.

    Example:
        >>> die = {"pi1": torch.tensor([1.0]), "pi2": torch.tensor([0.5, 0.5]),
        ...        "rho": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
        >>> result = invariants(die)
        >>> result["roll_probability"].tolist(), result["pair_probability"].tolist()
        ([0.5, 0.5], [[0.5, 0.0], [0.0, 0.5]])
    """
    _require(values, CONTINUOUS)
    rho = values["rho"]
    w = sum_distribution(values["pi1"], values["pi2"])
    weighted = w[..., None] * rho
    return {
        "roll_probability": weighted.sum(-2),
        "pair_probability": weighted.transpose(-1, -2) @ rho,
        "w_sorted": w.sort(-1, descending=True).values,
    }


def _require(values: dict[str, Tensor], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in values]
    if missing:
        raise OptionError(
            f"two_dice: expected values of the sites {', '.join(names)}; "
            f"missing {', '.join(missing)}."
        )
