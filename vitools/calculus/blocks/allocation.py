"""The logarithm of a sum of positive products, by allocations that are never stored.

For any shares φ that add up to one, Jensen gives E log Σ_k a_k ≥ Σ_k φ_k (E log a_k - log φ_k), and the
best shares, φ_k ∝ exp E log a_k, make of it

    log Z,        Z = Σ_k exp E log a_k,

the sum itself with the geometric mean g = exp E log x in place of every latent x (Cemgil 2009, "Bayesian
inference for nonnegative matrix factorisation models"; Gopalan, Hofman and Blei 2015, "Scalable
recommendation with hierarchical Poisson factorization"). So Z, and what it says to a latent,

    w ∂ log Z / ∂ E log x = g ∂(w/Z · Z)/∂g,

are contractions like those of any term: of data of which few are not zero, sparse products. An update
of x at these shares, taken where x is now, raises the bound with log Z in it (the shares are the best
before it, and so again after it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Predictor, Unsupported
from vitools.calculus.algebra.logarithm import LOG_SUM
from vitools.calculus.blocks.block import Between, Block, Resolved, describe
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.densities.surrogates import GEOMETRIC, SHARE, SLOPE
from vitools.calculus.tracing.trace import ModelTrace
from vitools.errors import NotConjugateError, NumericalError
from vitools.problem.sites import listed

NOISE = 0.5
"""Of a start: standard deviation of the logarithms of geometric means, to tell components apart."""


class AllocationNode(Between):
    """What geometric means and sums of them have in common."""

    runs_together = False
    offered: tuple[str, ...]

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        if len(atoms) > 1 or atoms[0].function not in self.offered:
            what = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"{what}, of which only one has an expectation")
        return Resolved(atoms[0].function, atoms[0].labels)

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        return self.batch_shape

    def _told(self, messages: Mapping[Any, Tensor], key: str) -> Tensor:
        told = torch.as_tensor(messages.get(key, 0.0), dtype=torch.float64)
        return told.expand(self.batch_shape)

    def _set(self, **moments: Tensor) -> None:
        self.moments = moments
        self.natural = tuple(moments.values())
        self.changed()


class GeometricMean(AllocationNode):
    """g = exp(p E log x) of each element of a latent, and what the sum says to p log x."""

    offered = (GEOMETRIC, SLOPE)

    def start(self, generator: torch.Generator | None = None) -> None:
        """Around one, no two elements alike."""
        zeros = torch.zeros(self.batch_shape, dtype=torch.float64)
        noise = torch.randn(self.batch_shape, generator=generator, dtype=torch.float64)
        self._set(**{GEOMETRIC: (NOISE * noise).exp(), SLOPE: zeros})

    def update(self, messages: dict[Any, Tensor]) -> None:
        mean = self._told(messages, SLOPE).exp()
        self._set(**{GEOMETRIC: mean, SLOPE: mean * self._told(messages, GEOMETRIC)})


class LogOfSumNode(AllocationNode):
    """log Z of each element of a sum, and w / Z, w the coefficient of log Z."""

    offered = (LOG_SUM, SHARE)

    def start(self, generator: torch.Generator | None = None) -> None:
        zeros = torch.zeros(self.batch_shape, dtype=torch.float64)
        self._set(**{LOG_SUM: zeros, SHARE: zeros})

    def update(self, messages: dict[Any, Tensor]) -> None:
        total, weight = self._told(messages, SHARE), self._told(messages, LOG_SUM)
        counts = weight != 0
        if bool((counts & (total == 0)).any()):
            raise NumericalError(
                f"the logarithm of a sum of {self.title} is below -700 for "
                f"{int((counts & (total == 0)).sum())} of its elements: all of its parts are zero "
                "to rounding. Priors that let every part vanish (shapes far below 0.01) do that."
            )
        self._set(
            **{
                LOG_SUM: torch.where(counts, total.log(), 0.0),
                SHARE: torch.where(counts, weight / total, 0.0),
            }
        )


def make_allocations(terms: Iterable[ClosedTerm], trace: ModelTrace) -> list[AllocationNode]:
    """The nodes of all logarithms of sums in the terms, if they stand for a lower bound."""
    found: dict[Predictor, AllocationNode] = {}
    for term in terms:
        for atom in term.atoms:
            name = atom.site
            if not isinstance(name, Predictor) or not (name.is_sum or name.is_factor):
                continue
            if name not in found:
                found[name] = (GeometricMean if name.is_factor else LogOfSumNode)(name)
            if atom.function == LOG_SUM:
                _check(term, name, trace)
    return list(found.values())


def _check(term: ClosedTerm, name: Predictor, trace: ModelTrace) -> None:
    of = listed([repr(site) for site in sorted(name.expression.sites())])
    raised = f"site {term.origin!r}: not conjugate to its parents: the logarithm of a sum of {of}"
    if len(term.atoms) > 1:
        raise NotConjugateError(
            f"{raised} stands beside another latent, and only its own bound is known",
            name.expression.sites(),
        )
    signs = [term.coefficient < 0] + [bool((c.tensor < 0).any()) for c in term.constants]
    if any(signs):
        raise NotConjugateError(
            f"{raised} has a negative coefficient, where allocations would be no lower bound",
            name.expression.sites(),
        )
    for site in sorted(name.expression.sites()):
        if not is_positive(trace, site):
            raise NotConjugateError(
                f"{raised}: {site!r} may be negative, and allocations are shares of what is positive",
                name.expression.sites(),
            )


def is_positive(trace: ModelTrace, site: str) -> bool:
    """Whether a latent's support holds no negative number."""
    support = trace.sites[site].fn.support
    support = getattr(support, "base_constraint", support)
    if support is torch.distributions.constraints.simplex:
        return True
    lower = getattr(support, "lower_bound", None)
    return lower is not None and bool((torch.as_tensor(lower) >= 0).all())


def with_allocations(order: Sequence[Block], nodes: Sequence[AllocationNode]) -> list[Block]:
    """Around each block: what the sums say to it, taken where it is now; and after it the sums anew."""
    means = [node for node in nodes if isinstance(node, GeometricMean)]
    sums = [node for node in nodes if isinstance(node, LogOfSumNode)]
    result: list[Block] = []
    for block in order:
        own = [mean for mean in means if mean.sites & set(block.names)]
        touched = [total for total in sums if total.sites & set(block.names)]
        result += [*own, block, *own, *touched] if own else [block]
    return result
