"""First responsibilities of a mixture: k-means++ seeds and a few Lloyd steps on the data.

A nearest-centre rule is linear in the features, 2 c·F - |c|², so it is a set of natural
parameters like any other (Arthur and Vassilvitskii 2007, "k-means++").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.streams.streamed import StreamedBlock

SAMPLE = 5000
LLOYD_STEPS = 30
TRIES = 4  # seedings of which the one nearest to the data is kept
SHARPNESS = 2.0


def seed_clusters(block: StreamedBlock, generator: torch.Generator) -> tuple[Tensor, ...] | None:
    """Natural parameters of a starting partition; None where the block is not a plain mixture."""
    if not isinstance(block.dense, DiscreteBlock) or len(block.names) > 1:
        return None
    cases = block.dense.cases
    if block.row.batch_shape.count(1) < len(block.row.batch_shape) or block.count < cases:
        return None
    rows = torch.randperm(block.count, generator=generator)[:SAMPLE]
    columns = _columns(block, rows)
    if not columns:
        return None
    data = torch.cat([c for _, c in columns], 1)
    mean, spread = data.mean(0), data.std(0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    scaled = (data - mean) / spread
    if len(torch.unique(scaled, dim=0)) < cases:
        return None
    tries = [_lloyd(scaled, _plus_plus(scaled, cases, generator)) for _ in range(TRIES)]
    centres = min(
        tries, key=lambda centres: float(torch.cdist(scaled, centres).amin(1).square().sum())
    )
    return _natural(block, columns, centres, mean, spread)


def _columns(block: StreamedBlock, rows: Tensor) -> list[tuple[int, Tensor]]:
    """Features that are data themselves: no products, no squares of others, no constants."""
    found: list[tuple[int, Tensor]] = []
    for key, statistic in block.statistics.items():
        feature = statistic.feature
        if statistic.along or feature.index is not None or len(feature.factors) != 1:
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
    """Seeds drawn with probability proportional to the squared distance to the nearest one.

    Of a few draws the one that brings the data nearest is kept: the greedy variant, without which
    two seeds often share a cluster.
    """
    first = torch.randint(len(data), (1,), generator=generator)
    centres = data[first]
    distance = ((data - centres) ** 2).sum(1)
    draws = 2 + int(math.log(count))
    for _ in range(count - 1):
        chosen = torch.multinomial(
            distance.clamp(min=1e-300), draws, replacement=True, generator=generator
        )
        nearer = torch.minimum(distance, torch.cdist(data[chosen], data) ** 2)
        best = int(nearer.sum(1).argmin())
        centres = torch.cat([centres, data[chosen[best : best + 1]]])
        distance = nearer[best]
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
    ones = [key for key, feature in block.features.items() if feature.is_constant]
    if not ones:
        return None
    natural[ones[0]] = offsets.reshape(block.statistic_shape(ones[0]))
    start = 0
    for key, data in columns:
        part = slopes[:, start : start + data.shape[1]].T
        natural[key] = part.reshape(block.statistic_shape(key))
        start += data.shape[1]
    return tuple(natural[key] for key in block.features)
