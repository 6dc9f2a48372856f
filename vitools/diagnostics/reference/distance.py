"""How far a fit's draws are from a reference's, beyond means and sds.

In units of the reference's sd, entry by entry: the error of the 5, 50 and 95 % quantiles; the
error of correlations; and for the joint distribution of standardised entries the sliced
Wasserstein distance, the mean over random directions v of

    W₁(vᵀθ_q, vᵀθ_ref) = ∫ |F_q⁻¹(u) - F_ref⁻¹(u)| du.

Standard errors hold the Monte Carlo errors of both sides, by the jackknife over ten blocks of
consecutive draws of each (consecutive, so that the blocks of a Markov chain are nearly independent).

Reference: Bonneel, Rabin, Peyré, Pfister, *Sliced and Radon Wasserstein barycenters of measures*,
2015. Künsch, *The jackknife and the bootstrap for general stationary observations*, 1989.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.reference.accuracy import SURE, entry_name, varying_scale
from vitools.errors import OptionError
from vitools.posterior import Estimate

LEVELS = (0.05, 0.5, 0.95)
BLOCKS = 10
DIRECTIONS = 30
GRID = 100
MOST_ENTRIES = 100


@dataclass(frozen=True)
class Distance:
    """The worst quantile and correlation, and the sliced Wasserstein distance.

    Attributes:
        quantile_error: in reference sds; ``quantile_error_at`` names entry and level, ``"mu 5 %"``.
        correlation_error: |ρ_q - ρ_ref| of the pair ``correlation_error_at``; ``None`` with one
            entry.
        sliced_wasserstein: in reference sds. Finite draws of one distribution are not at distance
            zero: compare with ``floor``, the distance between the two halves of the reference.
    """

    quantile_error: Estimate
    quantile_error_at: str
    correlation_error: Estimate | None
    correlation_error_at: str
    sliced_wasserstein: Estimate
    floor: float


def measure_distance(
    draws: Mapping[str, Tensor], reference: Mapping[str, Tensor], seed: int = 0
) -> Distance | None:
    """Compare draws ``{name: [n, *shape]}`` with a reference's ``{name: [m, *shape]}``.

    Constants are left out; of more than 100 entries, the first 100 are compared. ``None`` if
    nothing varies.

    Args:
        reference: draws of the same quantities, from a sampler, a file, wherever. Draws of several
            chains are to follow each other.
        seed: of the random directions.

    Example:
        >>> grid = torch.linspace(0.005, 0.995, 400).double()
        >>> normal = 2**0.5 * torch.erfinv(2 * grid - 1)
        >>> shuffled = normal[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
        >>> found = measure_distance({"mu": shuffled + 1.0}, {"mu": shuffled})
        >>> round(found.sliced_wasserstein.value, 2), found.quantile_error_at.split()[0]
        (1.03, 'mu')
    """
    names, ours, theirs = _columns(draws, reference)
    if not names:
        return None
    for what, matrix in (("the fit's", ours), ("the reference's", theirs)):
        if len(matrix) < 2 * BLOCKS:
            raise OptionError(
                f"expected at least {2 * BLOCKS} draws to compare, got {len(matrix)} of {what}."
            )
    quantile, at = _worst(_quantiles, ours, theirs)
    level, entry = divmod(at, len(names))
    said = f"{names[entry]} {100 * LEVELS[level]:.0f} %"
    correlation, pair = None, ""
    if len(names) > 1:
        correlation, at = _worst(_correlations, ours, theirs)
        rows, columns = torch.triu_indices(len(names), len(names), 1)
        pair = f"{names[int(rows[at])]} and {names[int(columns[at])]}"
    sliced = _sliced(len(names), seed)

    def gap(one: Tensor, other: Tensor) -> Tensor:
        return (sliced(one) - sliced(other)).abs().mean()

    half = len(theirs) // 2
    return Distance(
        quantile,
        said,
        correlation,
        pair,
        Estimate(float(gap(ours, theirs)), _error_of_gap(gap, ours, theirs)),
        float(gap(theirs[:half], theirs[half:])),
    )


def _columns(
    draws: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> tuple[list[str], Tensor, Tensor]:
    """Names and standardised entries, ``[n, P]`` and ``[m, P]``."""
    names: list[str] = []
    ours, theirs = [], []
    for name, value in reference.items():
        if name not in draws or draws[name].shape[1:] != value.shape[1:]:
            found = tuple(draws[name].shape[1:]) if name in draws else "no draws"
            raise OptionError(
                f"'{name}': the reference has entries of shape {tuple(value.shape[1:])}, the fit "
                f"{found}."
            )
        flat = value.detach().cpu().double().flatten(1) if value.dim() > 1 else value[:, None]
        flat = flat.detach().cpu().double()
        own = draws[name].detach().cpu().double().reshape(len(draws[name]), -1)
        centre, scale = flat.mean(0), varying_scale(flat.mean(0), flat.std(0))
        for i in range(flat.shape[1]):
            if not math.isnan(float(scale[i])) and len(names) < MOST_ENTRIES:
                shape = value.shape[1:]
                where = torch.unravel_index(torch.tensor(i), shape) if shape else ()
                names.append(entry_name(name, tuple(int(k) for k in where)))
                ours.append((own[:, i] - centre[i]) / scale[i])
                theirs.append((flat[:, i] - centre[i]) / scale[i])
    if not names:
        return [], torch.zeros(0, 0), torch.zeros(0, 0)
    return names, torch.stack(ours, -1), torch.stack(theirs, -1)


Statistic = Callable[[Tensor], Tensor]


def _quantiles(columns: Tensor) -> Tensor:
    return _sorted_at(columns, torch.tensor(LEVELS, dtype=torch.float64)).flatten()


def _sorted_at(columns: Tensor, levels: Tensor) -> Tensor:
    """Quantiles of each column, interpolated between order statistics: ``[levels, columns]``."""
    place = levels * (len(columns) - 1)
    below = place.floor().long().clamp(max=len(columns) - 2)
    part = (place - below)[:, None]
    ordered = columns.sort(0).values
    return ordered[below] * (1 - part) + ordered[below + 1] * part


def _correlations(columns: Tensor) -> Tensor:
    rows, cols = torch.triu_indices(columns.shape[1], columns.shape[1], 1)
    return torch.corrcoef(columns.T)[rows, cols].nan_to_num(0.0)


def _sliced(dim: int, seed: int) -> Statistic:
    """Quantiles of the projections on random directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(dim, DIRECTIONS, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    levels = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    return lambda columns: _sorted_at(columns @ directions, levels)


def _worst(statistic: Statistic, ours: Tensor, theirs: Tensor) -> tuple[Estimate, int]:
    """The largest difference beyond doubt, and its place."""
    error = (statistic(ours) - statistic(theirs)).abs()
    doubt = (_variance(statistic, ours) + _variance(statistic, theirs)).sqrt()
    at = int((error - SURE * doubt).argmax())
    return Estimate(float(error[at]), float(doubt[at])), at


def _variance(statistic: Statistic, columns: Tensor) -> Tensor:
    """(G - 1)/G Σ (s_g - s̄)² over the statistics without block g."""
    parts = columns.tensor_split(BLOCKS)
    without = torch.stack(
        [statistic(torch.cat([*parts[:g], *parts[g + 1 :]])) for g in range(BLOCKS)]
    )
    return (BLOCKS - 1) * without.var(0, correction=0)


def _error_of_gap(gap: Callable[[Tensor, Tensor], Tensor], ours: Tensor, theirs: Tensor) -> float:
    left = _variance(lambda columns: gap(columns, theirs), ours)
    right = _variance(lambda columns: gap(ours, columns), theirs)
    return float((left + right).sqrt())
