"""log p and log q as terms over plates, so that what belongs to one element can be told apart."""

from collections.abc import Iterable
from dataclasses import dataclass

from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from vitools.engines.objectives.objective import drawn_sites
from vitools.errors import NotSupportedError
from vitools.problem import Problem
from vitools.problem.density.enumeration import FactorGraph
from vitools.problem.density.factors import SiteFactor


@dataclass(frozen=True)
class SiteTerm:
    """The joint log density of some sites, one entry for each element of their common plates.

    Attributes:
        sites: names; several where discrete latents that they share were summed out.
        log_density: with a dim for every plate of the problem, of size 1 where ``plates`` lacks it.
        scale: of a ``poutine.scale``, not applied.
    """

    sites: tuple[str, ...]
    log_density: Tensor
    plates: frozenset[str]
    scale: float


class PlateLayout:
    """Where the plates of a problem stand in its tensors, and how much a minibatch counts."""

    def __init__(self, problem: Problem) -> None:
        self.plates = problem.plates
        self.rank = problem.max_plate_nesting

    def weight(self, names: Iterable[str]) -> float:
        """∏ N/B over some plates."""
        weight = 1.0
        for name in names:
            weight *= self.plates[name].size / self.plates[name].subsample_size
        return weight

    def summed_to(self, term: SiteTerm, keep: frozenset[str]) -> Tensor:
        """A term summed over its plates outside ``keep``, minibatches weighted."""
        gone = term.plates - keep
        dims = [self.plates[name].dim for name in gone]
        total = term.log_density.sum(dims, keepdim=True) if dims else term.log_density
        return total * self.weight(gone)

    def guide_terms(self, guide_run: Trace) -> list[SiteTerm]:
        """log q site by site, in the order of drawing."""
        return [self._guide_term(name, node) for name, node in drawn_sites(guide_run).items()]

    def _guide_term(self, name: str, node: dict) -> SiteTerm:
        log_q = scale_and_mask(node["fn"].log_prob(node["value"]), 1.0, node["mask"])
        frames = node["cond_indep_stack"]
        known = {f.name: f.dim for f in frames if f.vectorized and f.name in self.plates}
        own = [d for d in range(-log_q.dim(), 0) if d not in known.values() and log_q.shape[d] > 1]
        log_q = log_q.sum(own, keepdim=True) if own else log_q
        scale = _number(node["scale"], [name]) / self.weight(known)
        shape = log_q.shape[-self.rank :] if self.rank else ()
        return SiteTerm((name,), log_q.reshape(self._padded(shape)), frozenset(known), scale)

    def model_terms(self, graph: FactorGraph) -> list[SiteTerm]:
        """log p by components that share no discrete latent."""
        return [self._model_term(graph, members) for members in graph.components()]

    def _model_term(self, graph: FactorGraph, members: list[SiteFactor]) -> SiteTerm:
        names = [factor.name for factor in members]
        scales = {_number(factor.scale, names) for factor in members}
        if len(scales) > 1:
            raise NotSupportedError(
                f"sites {', '.join(map(repr, names))} share discrete latents but have different "
                "poutine.scale factors. Put all of them under one scale."
            )
        keep = frozenset.intersection(*(factor.plates for factor in members))
        packed = graph.contract(members, keep)
        shape = [1] * self.rank
        dims = [self.plates[graph.plate_of(letter)].dim for letter in packed._pyro_dims]
        for dim, size in zip(dims, packed.shape, strict=True):
            shape[dim] = size
        ordered = packed.permute(sorted(range(len(dims)), key=dims.__getitem__))
        plates = frozenset(graph.plate_of(letter) for letter in keep)
        return SiteTerm(tuple(names), ordered.reshape(shape), plates, scales.pop())

    def _padded(self, shape: tuple[int, ...]) -> list[int]:
        return [1] * (self.rank - len(shape)) + list(shape)


def _number(scale: object, names: list[str]) -> float:
    if isinstance(scale, Tensor) and scale.numel() > 1:
        raise NotSupportedError(
            f"site {', '.join(map(repr, names))} has a poutine.scale with one weight for each "
            "element, which this objective cannot use. Use Elbo() with a reparameterised guide."
        )
    return float(scale)  # type: ignore[arg-type]
