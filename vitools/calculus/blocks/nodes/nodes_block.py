"""Blocks of scalars on nodes, alone or two of the same plates with their joint table.

A scalar that no product of statistics holds (a dispersion beside a predictor, a shape beside a scale)
counts as discrete over the nodes of a quadrature: every function of it is a table, and the optimal factor

    q_k ∝ w_k exp(E log p at s_k),        w_k = h ds/du the base measure,

sums to what the integral is, to the digits that the nodes give (:mod:`vitools.distributions.free_form.nodes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.blocks.block import DenseBlock, with_event
from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.tracing.trace import TracedSite
from vitools.distributions.free_form import FreeFormPair
from vitools.distributions.free_form.nodes import Nodes, halving_change
from vitools.errors import NumericalError
from vitools.families.moments import SiteMoments

TOLERATED = 1e-4
"""What half the nodes may miss, of the mass and of what is averaged; all of them miss its square."""


class NodesBlock(DiscreteBlock):
    """One scalar site on nodes, or two."""

    integrates = True

    def __init__(self, sites: Sequence[TracedSite]):
        super().__init__(sites)
        if len(sites) > 2:
            raise Unsupported("a joint table of more than two scalars")
        self.nodes: list[Nodes] = [site.nodes for site in sites if site.nodes is not None]

    def start(self, prior: Mapping[Any, Tensor], generator: torch.Generator | None) -> None:
        """The prior on the nodes."""
        self.restore(self.gathered(prior))

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        """Normal about the means given, as wide as is told or as the nodes are apart."""
        total = torch.zeros(self.component_shape(0), dtype=torch.float64)
        for site, nodes in zip(self.sites, self.nodes, strict=True):
            if site.name in given:
                mean, variance = given[site.name].mean, given[site.name].variance
                apart = nodes.values - mean.unsqueeze(-1)
                nearest = apart.square().amin(-1)
                spread = nearest if variance is None else torch.maximum(variance, nearest)
                logits = -apart.square() / (2 * spread.clamp(min=1e-300).unsqueeze(-1))
                total = total + self.embed((site.name,), logits + nodes.log_weights)
        self.restore((total,))

    def check(self) -> None:
        if bool(self.natural[0].isnan().any()):
            raise NumericalError(
                f"site {self.title!r}: its density at the nodes is no number. Give it a prior that keeps "
                "it away from where the model has none"
            )

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return NodesBlock(sites)

    # ---- tables ------------------------------------------------------------------------------

    def log_table(self) -> Tensor:
        """log q in u up to a constant, ``[*batch, K, 1]`` or ``[*batch, K, L]``."""
        last = self.supports[1] if len(self.sites) > 1 else 1
        return self.natural[0].reshape(*self.batch_shape, self.supports[0], last)

    def log_marginal(self, number: int) -> Tensor:
        return self.log_table().logsumexp(-1 - number % 2 if len(self.sites) > 1 else -1)

    def refined(self, averaged: Mapping[str, Sequence[Tensor]], count: int) -> dict[str, Nodes]:
        """Other nodes for the sites whose own do not hold them well.

        Args:
            averaged: of each site the sizes ``[*batch, K]`` of what is averaged over it.
            count: of nodes in a new window.
        """
        found: dict[str, Nodes] = {}
        for number, (site, nodes) in enumerate(zip(self.sites, self.nodes, strict=True)):
            log_density = self.log_marginal(number)
            weighted = below_top(log_density)
            for size in (*averaged.get(site.name, ()), nodes.values.square()):
                weighted = torch.maximum(weighted, below_top(log_density + size.log()))
            moved = nodes.moved(log_density, weighted, count)
            if moved is not None:
                found[site.name] = moved
        if found:
            return found
        for together in (
            False,
            True,
        ):  # what more nodes along one axis mend needs none along the other
            for number, (site, nodes) in enumerate(zip(self.sites, self.nodes, strict=True)):
                if float(self._changes(number, averaged, together).max()) > TOLERATED:
                    found[site.name] = nodes.finer()
            if found:
                break
        return found

    def _changes(
        self, number: int, averaged: Mapping[str, Sequence[Tensor]], together: bool = True
    ) -> Tensor:
        """By how much every second node along one axis, or along both at once, misses each sum."""
        table, axis = self.log_table(), number - 2
        axes = [(axis,), (-2, -1)][: 1 + together] if len(self.sites) > 1 else [(-2,)]
        own = averaged.get(self.sites[number].name, ())
        weights = [torch.ones((), dtype=torch.float64)]
        weights += [size.unsqueeze(-1 if axis == -2 else -2) for size in own]
        changes = [halving_change(weight, table, each) for weight in weights for each in axes]
        return torch.stack(torch.broadcast_tensors(*changes))

    def integral_error(self, messages: Mapping[Any, Tensor]) -> float:
        changes = torch.stack([self._changes(i, {}).amax(0) for i in range(len(self.sites))])
        return float((changes.square() * 10).sum())

    # ---- the factor ----------------------------------------------------------------------------

    def distribution(self, name: str) -> Distribution:
        number = self.names.index(name)
        density = self.nodes[number].density(self.log_marginal(number))
        return with_event(density, self.sites[number], self.mask)

    def joint_distribution(self) -> Distribution:
        return FreeFormPair.of_nodes(self.nodes[0], self.nodes[1], self.log_table())


def below_top(log_density: Tensor) -> Tensor:
    return log_density - log_density.amax(-1, keepdim=True)
