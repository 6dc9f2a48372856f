"""The expected gain exactly: beliefs on a lattice of one to three dims, outcomes by sum or quadrature.

    I = H(y) - E H(y | θ),   p(y) = Σ_k w_k p(y | θ_k)

The θ_k are a lattice in unconstrained coordinates, along the axes in which the belief is round and crowded
where it is: w = c log(s / (1 - s)) with s equally spaced. w_k is the belief's density there, times dw/ds. The
lattice is made finer until what every second node gives agrees with what all give; their difference is the
error of the former, and a generous one of the latter.
"""

import inspect
import math
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution

from vitools.design.experiment import Candidate
from vitools.design.nested import listed_outcomes
from vitools.errors import NotSupportedError
from vitools.information.entropy import entropies
from vitools.information.expectation import expectation
from vitools.information.fisher import without_layers
from vitools.isolation import validating
from vitools.posterior import Estimate

FEWEST, MOST = {1: 8, 2: 6, 3: 4}, {1: 12, 2: 8, 3: 6}
"""2^k - 1 nodes along an axis, by dims: at first, and at most."""
TOLERANCE = 1e-5
PROBES = 4000
SPREAD = 1.2
"""c, in standard deviations of the belief; tails up to those of e^(-|u|) are so held to the end."""
NEGLIGIBLE = 30.0
TOGETHER = 2**22
"""Pairs of an outcome and a node whose densities are held in memory together."""


def on_grid(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """By sums; its error is that of the lattice and of the quadrature, and no draws are in it."""
    candidate.refuse_nuisances("grid")
    belief = _Lattice(candidate, seed)
    previous = math.nan
    for level in range(FEWEST[belief.size] - 1, MOST[belief.size] + 1):
        draws, log_weights = belief.nodes(2**level - 1)
        value, error = _gain(candidate, draws, log_weights)
        change = abs(value - previous)
        if change < TOLERANCE:
            break
        previous = value
    return Estimate(value, change + error)


class _Lattice:
    """Where the belief is, in unconstrained coordinates."""

    def __init__(self, candidate: Candidate, seed: int) -> None:
        self.candidate, self.space = candidate, candidate.space
        self.size = self.space.size
        if self.size not in FEWEST:
            raise NotSupportedError(
                f"method 'grid' needs one to three latent dims, got {self.size}. Use method='nested'."
            )
        drawn = self.space.from_values(candidate.draws(PROBES, 16 * seed)).double()
        self.centre = drawn.mean(0)
        self.root = torch.linalg.cholesky(drawn.mT.cov().reshape(self.size, self.size))

    def nodes(self, count: int) -> tuple[dict[str, Tensor], Tensor]:
        """Values ``{site: [K, *shape]}`` and log of the belief's share of each, up to a constant."""
        s = torch.arange(1, count + 1, dtype=torch.float64) / (count + 1)
        mesh = torch.stack(torch.meshgrid(*[s] * self.size, indexing="ij"), -1)
        s = mesh.reshape(-1, self.size)
        vectors = self.centre + SPREAD * (s.log() - (-s).log1p()) @ self.root.mT
        vectors = vectors.to(self.space.dtype)
        values = self.space.to_values(vectors)
        with torch.no_grad():
            density = self.candidate.log_belief(values) + self.space.log_jacobian(vectors)
        stretched = density.double() - (s.log() + (-s).log1p()).sum(-1)
        stretched = stretched.nan_to_num(nan=-torch.inf)
        kept = stretched > stretched.max() - NEGLIGIBLE
        return {k: v[kept] for k, v in values.items()}, stretched[kept]


class _Mixture(Distribution):
    """Σ_k w_k p_k of a batch ``[K]`` of scalar distributions."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, log_weights: Tensor, parts: Any) -> None:
        self.log_weights, self.parts = log_weights, parts
        super().__init__(validate_args=False)

    @property
    def support(self) -> Any:
        return self.parts.support

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp() * self.parts.mean).sum()

    @property
    def variance(self) -> Tensor:
        squares = self.parts.variance + (self.parts.mean - self.mean).square()
        return (self.log_weights.exp() * squares).sum()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        chosen = torch.multinomial(self.log_weights.exp(), shape.numel(), replacement=True)
        draws = self.parts.sample(shape)
        return draws.gather(-1, chosen.reshape(*shape, 1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        rows = value.reshape(-1).split(max(1, TOGETHER // len(self.log_weights)))
        found = [
            (self.parts.log_prob(part.unsqueeze(-1)) + self.log_weights).logsumexp(-1)
            for part in rows
        ]
        return torch.cat(found).reshape(value.shape)


def _gain(
    candidate: Candidate, draws: dict[str, Tensor], log_weights: Tensor
) -> tuple[float, float]:
    log_weights = log_weights - log_weights.logsumexp(0)
    weights = log_weights.exp()
    outcomes = listed_outcomes(candidate)
    if outcomes is not None:
        log_p = candidate.log_likelihoods(draws, outcomes)
        log_mean = (log_p + log_weights).logsumexp(1, keepdim=True)
        terms = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_mean), 0.0)
        return float((terms * weights).sum()), 0.0
    component = _component(candidate, draws)
    with validating(False), torch.no_grad():
        mixture = _Mixture(log_weights, component)
        found = expectation(mixture, lambda y: -mixture.log_prob(y).double())
        if found is None:
            raise NotSupportedError(
                "method 'grid' needs an outcome that can be listed, or a single number with a density; "
                "this one is neither. Use method='nested'."
            )
        left, error = entropies(component)
    value = float(found[0]) - float((weights * left).sum())
    return value, float(found[1]) + float((weights * error).sum())


def _component(candidate: Candidate, draws: dict[str, Tensor]) -> Any:
    """The distribution of the outcome given each node, a batch ``[K]``."""
    problem = candidate.problem
    sites = list(problem.observed.values())
    if len(sites) != 1 or sites[0].shape.numel() != 1 or problem.discrete:
        raise NotSupportedError(
            "method 'grid' takes one number as outcome (or outcomes that can be listed), and no "
            "discrete latents beside it. Use method='nested'."
        )
    (site,) = sites

    def outcome(draw: dict[str, Tensor]) -> Any:
        with problem._isolated():
            run = poutine.trace(poutine.condition(problem.call, data=draw)).get_trace()
        return without_layers(run.nodes[site.name]["fn"])

    with torch.no_grad():
        fn = outcome({name: value[0] for name, value in draws.items()})
        names = _arguments(fn)
        if names is None or fn.event_shape or math.prod(fn.batch_shape) != 1:
            raise NotSupportedError(
                f"method 'grid' cannot take an outcome that is a {type(fn).__name__}. Use "
                "method='nested'."
            )

        def parameters(draw: dict[str, Tensor]) -> dict[str, Tensor]:
            here = outcome(draw)
            return {k: getattr(here, k).reshape(()) for k in names}

        found = problem.map_draws(parameters, draws)
    return type(fn)(**{k: v.double() for k, v in found.items()}, validate_args=False)


def _arguments(fn: Any) -> list[str] | None:
    """What ``fn`` can be made from again, None where numbers alone do not make it.

    One parametrisation: of probabilities and logits, that which it was made with.
    """
    taken = inspect.signature(type(fn)).parameters
    names = [k for k in taken if k in fn.arg_constraints]
    for share, log_odds in (("probs", "logits"), ("gate", "gate_logits")):
        if share in names and log_odds in names:
            names.remove(share if log_odds in vars(fn) else log_odds)
    needed = {k for k, parameter in taken.items() if parameter.default is inspect.Parameter.empty}
    if not names or "validate_args" not in taken or not needed <= set(names):
        return None
    return names
