"""First responsibilities of a mixture: k-means++ seeds and a few Lloyd steps on the data.

A nearest-centre rule is linear in the features, 2 c·F - |c|², so it is a set of natural
parameters like any other (Arthur and Vassilvitskii 2007, "k-means++").
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.conjugacy.streamed import StreamedBlock

SAMPLE = 5000
LLOYD_STEPS = 10
SHARPNESS = 2.0


def seed_clusters(block: StreamedBlock, generator: torch.Generator) -> tuple[Tensor, ...] | None:
    """Natural parameters of a starting partition; None where the block is not a plain mixture."""
    if len(block.names) > 1 or block.count < block.cases:
        return None
    rows = torch.randperm(block.count, generator=generator)[:SAMPLE]
    columns = _columns(block, rows)
    if not columns:
        return None
    data = torch.cat([c for _, c in columns], 1)
    mean, spread = data.mean(0), data.std(0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    scaled = (data - mean) / spread
    if len(torch.unique(scaled, dim=0)) < block.cases:
        return None
    centres = _lloyd(scaled, _plus_plus(scaled, block.cases, generator))
    return _natural(block, columns, centres, mean, spread)


def _columns(block: StreamedBlock, rows: Tensor) -> list[tuple[int, Tensor]]:
    """Features that are data themselves: no products, no squares of others, no constants."""
    found: list[tuple[int, Tensor]] = []
    for key, feature in block.features.items():
        if feature.index is not None or len(feature.factors) != 1:
            continue
        data = feature.factors[0][rows].reshape(len(rows), -1)
        if bool((data.std(0) > 0).any()):
            found.append((key, data))
    squares = {
        key
        for key, data in found
        if any(
            other.shape == data.shape and k != key and torch.allclose(other**2, data)
            for k, other in found
        )
    }
    kept = [(key, data) for key, data in found if key not in squares]
    return kept or found


def _plus_plus(data: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Seeds drawn with probability proportional to the squared distance to the nearest one."""
    first = torch.randint(len(data), (1,), generator=generator)
    centres = data[first]
    distance = ((data - centres) ** 2).sum(1)
    for _ in range(count - 1):
        chosen = torch.multinomial(distance.clamp(min=1e-300), 1, generator=generator)
        centres = torch.cat([centres, data[chosen]])
        distance = torch.minimum(distance, ((data - data[chosen]) ** 2).sum(1))
    return centres


def _lloyd(data: Tensor, centres: Tensor) -> Tensor:
    for _ in range(LLOYD_STEPS):
        nearest = torch.cdist(data, centres).argmin(1)
        hot = torch.nn.functional.one_hot(nearest, len(centres)).to(data.dtype)
        sizes = hot.sum(0).unsqueeze(1)
        centres = torch.where(sizes > 0, (hot.T @ data) / sizes.clamp(min=1), centres)
    return centres


def _natural(
    block: StreamedBlock,
    columns: list[tuple[int, Tensor]],
    centres: Tensor,
    mean: Tensor,
    spread: Tensor,
) -> tuple[Tensor, ...] | None:
    slopes = SHARPNESS * 2 * centres / spread
    offsets = -SHARPNESS * (centres**2).sum(1) - slopes @ mean
    natural = {
        key: torch.zeros(block.statistic_shape(key), dtype=torch.float64) for key in block.features
    }
    constant = [key for key, f in block.features.items() if not f.shape and f.index is None]
    ones = [k for k in constant if bool((block.features[k].factors[0] == 1).all())]
    if not ones:
        return None
    natural[ones[0]] = offsets
    start = 0
    for key, data in columns:
        part = slopes[:, start : start + data.shape[1]]
        natural[key] = part.reshape(block.statistic_shape(key))
        start += data.shape[1]
    return tuple(natural[key] for key in block.features)
