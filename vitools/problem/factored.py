"""The factors of a model's density, its discrete latents summed out, and whether that means what the model says."""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from vitools.distributions.rounding import Beyond
from vitools.isolation import lazy, seeded
from vitools.problem.bound_model import BoundModel
from vitools.problem.density.discrete import support_size
from vitools.problem.density.enumeration import FactorGraph
from vitools.problem.density.trajectories.factor import Reading
from vitools.problem.density.trajectories.graph import with_trajectories
from vitools.problem.density.trajectories.reads import read_trajectories
from vitools.problem.density.vectorise import DrawMapper
from vitools.problem.reading.agreement import trial
from vitools.problem.reading.dry_run import WIDEST, DryRun, Need
from vitools.problem.reading.runs import LARGE

COMPARED = 2**30
"""Bytes of a tensor up to which a large model is run on values to compare enumeration with it."""


class FactoredModel(BoundModel):
    """A bound model of which the factors at any values can be had.

    Args:
        model: any Pyro callable with at least one observed site (or ``pyro.factor``).
        *args, **kwargs: what the model is called with.
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self._needs: dict[frozenset[str], Need | None] = {}
        self._is_tried = False
        self._readings: dict[str, Reading] = {}
        self._read_trajectories()

    def _read_trajectories(self) -> None:
        """Find the step that each row of data reads; a trajectory of which that is no step is drawn."""
        sites = {name: site for name, site in self.discrete.items() if site.states}
        if not sites:
            return
        need = self._structure.need
        if need is not None and need.bytes > COMPARED:  # no density is asked for at this size
            self.not_summed = dict.fromkeys(sites, "")
        else:
            with seeded(0), self._isolated():
                drawn = poutine.trace(self.call).get_trace()
                example = {name: drawn.nodes[name]["value"].detach() for name in self.drawn}
                self._readings, self.not_summed = read_trajectories(
                    lambda values: self._graph({**example, **values}), sites
                )
        for name in self.not_summed:
            self.latents[name] = replace(self.latents[name], states=0)

    @lazy
    def _size(self) -> tuple[torch.dtype, int]:
        """The widest number type of the factors, and the bytes of all at one draw."""
        is_small = not (self.is_large or self._is_large_enumerated)
        with nullcontext() if is_small else DryRun():
            graph = trial(self._structure, self._graph, self._program.title, is_small)
        self._is_tried = is_small
        kinds = (factor.log_density.dtype for factor in graph.factors)
        cases = math.prod(max(site.states, 1) for site in self.discrete.values())
        size = cases * sum(factor.log_density.nbytes for factor in graph.factors)
        return reduce(torch.promote_types, kinds), size

    @property
    def dtype(self) -> torch.dtype:
        """The widest number type among the model's factors: float64 where data or priors are."""
        return self._size[0]

    @lazy
    def mapper(self) -> DrawMapper:
        """Maps functions of one draw over many."""
        statements = len(self.latents) + len(self.observed)
        return DrawMapper(self._program.title, self._size[1], statements)

    def factors(
        self, values: Mapping[str, Tensor], beyond: Mapping[str, Beyond] | None = None
    ) -> FactorGraph:
        """The model's factors at one draw, for whoever needs more than their sum.

        Args:
            beyond: as of :meth:`log_joint`.
        """
        if self.is_large or self._is_large_enumerated:
            self._refuse_large_density(frozenset(values))
        return self._graph(values, beyond=beyond)

    @property
    def _is_large_enumerated(self) -> bool:
        """Whether factors may be large with every discrete latent enumerated."""
        cases = math.prod(support_size(site) for site in self.discrete.values())
        sites = (*self.latents.values(), *self.observed.values())
        return cases > 1 and cases * max(site.shape.numel() for site in sites) * WIDEST > LARGE

    def try_enumeration(self) -> None:
        """Run the model with its discrete latents enumerated, and compare where that is cheap.

        Every engine has this done before it begins, so that nothing is fitted whose densities will
        be refused.
        """
        if self.discrete:
            _ = self._size

    def try_on_values(self) -> None:
        """Check that enumeration means what the model says, of large problems too.

        Called before the first density, and by a guide's preflight: coordinate ascent asks for none.
        """
        _ = self._size
        if not self._is_tried:
            self._refuse_large_density(frozenset(self.drawn))
            need = self._structure.need
            is_compared = need is None or need.bytes <= COMPARED
            trial(self._structure, self._graph, self._program.title, is_compared)
            self._is_tried = True

    def _graph(
        self,
        values: Mapping[str, Tensor],
        handler: Callable[..., Any] = lambda run: run,
        beyond: Mapping[str, Beyond] | None = None,
    ) -> FactorGraph:
        """The factors; ``handler`` goes around the model."""
        with self._isolated():
            conditioned = poutine.condition(handler(self.call), data=dict(values))
            return self.factors_of(conditioned, values, beyond)

    def factors_of(
        self,
        run: Callable[[], Any],
        given: Collection[str],
        beyond: Mapping[str, Beyond] | None = None,
    ) -> FactorGraph:
        """The factors of a run of :meth:`call`, replayed or conditioned as the caller wishes.

        Args:
            beyond: as of :meth:`log_joint`.
            given: the latents that have values in it; other discrete ones are summed out.
        """
        sites = {k: s for k, s in self.discrete.items() if s.states and k not in given}

        def make(held: Mapping[str, Tensor]) -> FactorGraph:
            held_run = poutine.condition(run, data=dict(held)) if held else run
            return FactorGraph(held_run, self.max_plate_nesting, beyond)

        return with_trajectories(make, sites, self._readings) if sites else make({})

    def _refuse_large_density(self, given: frozenset[str]) -> None:
        """Raise where densities with these sites given would need more memory than there is."""
        if given not in self._needs:
            example = {name: self._structure.example[name] for name in given}
            with seeded(0), DryRun() as sizes:
                self._graph(example, sizes.watch())
            self._needs[given] = sizes.need
        need = self._needs[given]
        if need is not None and need.exceeds_memory:
            raise need.refusal(f"the density of {self._program.title}")
