"""Elements of latents that a mask leaves out: q keeps their distribution given everything else.

Nothing but their own density reads them, so p(masked | the rest, data) is what any optimal q has
there. Discrete latents that they depend on are summed out, as in the problem itself:
log q(masked | rest) = log p(data, rest, masked) - log p(data, rest), the second with the masked
elements' own densities left out.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch import distributions as td

from vitools.distributions.joint_normal import JointNormal
from vitools.distributions.rounding import Beyond
from vitools.isolation import seeded
from vitools.problem import Problem
from vitools.problem.density.discrete import draw_sites
from vitools.problem.density.enumeration import FactorGraph
from vitools.problem.density.factors import SiteFactor
from vitools.problem.sites import Site

Values = dict[str, Tensor]


class MaskedElements:
    """The masked elements of a problem's latents.

    Args:
        kept: ``{site: booleans of its batch shape}``, true where q has a factor.
    """

    def __init__(self, problem: Problem, kept: Mapping[str, Tensor]) -> None:
        self.problem, self.kept = problem, dict(kept)

    def log_prob(self, flat: Values) -> Tensor:
        """log p(masked | rest, data) of values ``{site: [num_samples, *shape]}``: ``[n]``."""

        def once(draw: Mapping[str, Tensor]) -> Tensor:
            graph = self.problem.factors(draw)
            return graph.log_density() - self._silenced(graph).log_density()

        return self.problem.map_draws(once, flat)

    def drawn(self, values: Values, num_samples: int, seed: int) -> Values:
        """The sites of ``values`` with masked elements, drawn given the rest."""
        given = {name: value for name, value in values.items() if name not in self.kept}
        if self.problem.discrete:
            with seeded(seed), torch.no_grad():
                given |= draw_sites(
                    self.problem.discrete,
                    values,
                    num_samples,
                    self.problem.map_draws,
                    lambda draw: self._silenced(self.problem.factors(draw)),
                )
            given = {name: value for name, value in given.items() if name not in self.kept}
        prior = self.problem._forward(given, num_samples, seed, tuple(self.kept))
        found = {}
        for name, kept in self.kept.items():
            event = (1,) * (values[name].dim() - 1 - kept.dim())
            found[name] = torch.where(kept.reshape(kept.shape + event), values[name], prior[name])
        return found

    def without(self, name: str, shift: Beyond) -> Beyond:
        """By how much draws lie beyond their values, which masked elements do not."""
        if name not in self.kept:
            return shift
        kept = self.kept[name]
        event = (1,) * (len(self.problem.latents[name].shape) - kept.dim())
        own = kept.reshape(kept.shape + event)
        return {statistic: torch.where(own, by, 0.0) for statistic, by in shift.items()}

    def _silenced(self, graph: FactorGraph) -> FactorGraph:
        """The graph without the densities of masked elements."""
        other = copy.copy(graph)
        other.factors = [
            self._without_masked(factor, graph) if factor.name in self.kept else factor
            for factor in graph.factors
        ]
        return other

    def _without_masked(self, factor: SiteFactor, graph: FactorGraph) -> SiteFactor:
        site, kept = self.problem.latents[factor.name], self.kept[factor.name]
        wide = [i for i, size in enumerate(kept.shape) if size > 1]
        own = [graph.plate_letters[str(site.plates[i])] for i in wide]
        dims = factor.log_density._pyro_dims
        here = kept.reshape([kept.shape[i] for i in wide])
        here = here.permute([own.index(d) for d in dims if d in own])
        here = here[tuple(slice(None) if d in own else None for d in dims)]
        density: Any = torch.where(here, factor.log_density, 0.0)
        density._pyro_dims = dims
        return replace(factor, log_density=density)


def kept_elements(site: Site, factor: Any) -> Tensor | None:
    """Which elements of a continuous site its factor is about, of its batch shape; None for all."""
    if isinstance(factor, td.Independent):
        factor = factor.base_dist
    if isinstance(factor, JointNormal):
        kept = factor.kept_elements
    elif isinstance(factor, dist.MaskedDistribution):
        kept = torch.as_tensor(factor._mask)
        kept = kept.reshape((*kept.shape, *(1,) * (len(site.shape) - kept.dim())))
        kept = kept.expand(site.shape)
    else:
        return None
    kept = kept.reshape((*site.batch_shape, -1))
    if site.is_discrete or bool((kept != kept[..., :1]).any()) or bool(kept.all()):
        return None  # a mask inside one density hides elements from the model as well
    return kept[..., 0]
