"""The prior of a trajectory of discrete states as a table over its steps and pairs of neighbours.

    log P(z) = Σ_t p_t[z_t-1, z_t],     p_0[i, j] = log p_0[j] for every i

so that initial and later states are one tensor, whose gradient of log Σ_z exp(…) are the probabilities of
states and pairs (Darwiche 2003, "A differential approach to inference in Bayesian networks").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitools.distributions.layers import base_distribution
from vitools.problem.density.factors import SiteFactor

PRIVATE = 0xE000
"""Letters from here on are no letters of Pyro's."""


class Letters(NamedTuple):
    """The dims of a trajectory's table, the last four of it.

    Attributes:
        series: trajectories that are one event together.
        time: T steps.
        before, state: of z_t-1 and z_t; the second is what other factors depend on.
    """

    series: str
    time: str
    before: str
    state: str


def letters_of(number: int) -> Letters:
    """Those of the trajectory with this number in a model."""
    return Letters(*(chr(PRIVATE + 4 * number + i) for i in range(4)))


@dataclass(frozen=True)
class TrajectoryFactor(SiteFactor):
    """log P of a trajectory, packed: plates and discrete latents it depends on, then :class:`Letters`.

    Attributes:
        letters: of the last four dims; ``enumerated`` is their ``state``.
        sites: the site's batch dims by the letters of their plates (``None`` of size one), left to right.
    """

    letters: Letters
    sites: tuple[str | None, ...]


@dataclass(frozen=True)
class Reading:
    """Which step of which trajectory each row of a factor depends on.

    Attributes:
        sites: the trajectories; all are read at the same place.
        plates: names of the plates that rows lie along, left to right.
        index: the place among all steps of all series, in their order, of the plates' sizes.
    """

    sites: tuple[str, ...]
    plates: tuple[str, ...]
    index: Tensor


def prior_factor(
    factor: SiteFactor, node: Mapping[str, Any], letters: Letters, batch: tuple[str | None, ...]
) -> TrajectoryFactor:
    """The table of a site that a run of the model held at some value.

    Args:
        factor, node: of that run.
        batch: the letters of the site's batch dims.
    """
    fn = node["fn"]
    base = base_distribution(fn)
    rank = len(fn.batch_shape)
    initial, later = base.log_initial(), base.log_transition()
    states = initial.shape[-1]
    first = initial[..., None, None, :].expand(*initial.shape[:-1], 1, states, states)
    table = torch.cat([first, later.expand(*initial.shape[:-1], *later.shape[-3:])], -3)
    table = table.reshape(*fn.batch_shape, -1, *table.shape[-3:])
    symbols = node["infer"]["_dim_to_symbol"]
    wide = [d for d in range(rank) if fn.batch_shape[d] > 1]
    packed: Any = table.reshape([table.shape[d] for d in wide] + list(table.shape[-4:]))
    packed._pyro_dims = "".join([*(symbols[d - rank] for d in wide), *letters])
    return TrajectoryFactor(
        factor.name, packed, factor.plates, letters.state, factor.scale, letters, batch
    )
