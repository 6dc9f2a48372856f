"""A fit held against some of its rows: the log density of millions, from thousands and a pass over all.

The log likelihood of N rows at θ is what S of them say, each for N / S, put right by what all rows say at one
point θ* of the posterior (Bardenet, Doucet and Holmes 2017, "On Markov chain Monte Carlo methods for tall
data"; Quiroz et al. 2019, "Speeding up MCMC by efficient data subsampling"): with δ = u - u* on the reals,

    ℓ(θ) ≈ N/S Σ_S ℓ_n(θ) + [ℓ(θ*) - N/S Σ_S ℓ_n(θ*)] + [∇ℓ(θ*) - N/S Σ_S ∇ℓ_n(θ*)]·δ.

It is unbiased over the choice of rows. What is left of each row's share is of second order in δ, which shrinks
as the posterior does, so that the noise of the sum is about the curvatures' spread over √S, whatever N. That
noise is measured, over parts of the sample; and at a few draws of the fit the sum is held against that of all
rows, which the pass over them works out as well, for a row that bends far more than others may lie outside of
the sample. What is found there takes the place of a noise that does not explain it. More rows are taken until the
noise is small.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vitools.distributions.rounding import Beyond
from vitools.errors import VitoolsError
from vitools.posterior import DrawsPosterior, GridPosterior, Posterior
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.problem.rows import cut, is_of_rows, plate_of_rows
from vitools.whole_numbers import check_whole

LARGE = 1_000_000
"""Rows from which a fit is held against some of them."""
ROWS, PARTS = 10_000, 20
QUIET = 0.1
"""Nats, the most noise of a log density."""
PROBED, HELD = 50, 4
"""Draws by which the noise is measured, and those of them at which all rows are read."""
BEYOND = 3.0
"""Times the noise that parts of the sample tell of, beyond which the sum is off for what is not in it."""
BATCH_BYTES = 2**25
DIGITS = 1e-6


@dataclass(frozen=True)
class RowSample:
    """What a fit was held against.

    Attributes:
        num_rows, total: how many rows of how many.
        noise: standard deviation of a log density over the choice of rows, in nats.
    """

    num_rows: int
    total: int
    noise: float

    def __str__(self) -> str:
        return (
            f"on weights of {self.num_rows:,} of {self.total:,} rows (noise {self.noise:.1g} nats)"
        )


class SampledProblem(Problem):
    """Some rows of a problem in the place of all; densities are corrected as the module says."""

    sample: RowSample
    at: Tensor
    constant: Tensor
    slope: Tensor

    @classmethod
    def of(
        cls, some: Problem, sample: RowSample, at: Tensor, constant: Tensor, slope: Tensor
    ) -> SampledProblem:
        """The problem of the rows that were chosen, each counting for several, with its corrections."""
        made = object.__new__(cls)
        vars(made).update(vars(some))
        made.sample, made.at, made.constant, made.slope = sample, at, constant, slope
        return made

    def log_joint(
        self, values: Mapping[str, Tensor], beyond: Mapping[str, Beyond] | None = None
    ) -> Tensor:
        """Of all rows, up to the noise of the sample."""
        found = super().log_joint(values, beyond)
        delta = UnconstrainedSpace(self).from_values(values) - self.at
        return found + (self.constant + delta @ self.slope).to(found.dtype)


def on_sampled_rows(
    posterior: Posterior, num_rows: int | None = None, seed: int = 0
) -> tuple[Posterior, RowSample | None]:
    """The fit with some of its rows in the place of all, and how many; the fit itself where that cannot be.

    It cannot where rows have latents that a density is given, where the model makes of a row what depends
    on others, or where so much noise is left that all rows are the cheaper. Draws of :meth:`predictive` are
    then of the sampled rows.

    Args:
        num_rows: at least so many; by default 10 000 where there are a million or more.
    """
    if num_rows is not None:
        check_whole("num_rows", num_rows, PARTS)
    problem = posterior.problem
    if posterior.part or posterior.points or isinstance(posterior, DrawsPosterior | GridPosterior):
        return posterior, None
    try:
        plate = plate_of_rows(problem, "num_rows")
    except VitoolsError:
        return posterior, None
    total = problem.plates[plate].size
    if total < (LARGE if num_rows is None else num_rows + 1) or not _is_row_by_row(problem, plate):
        return posterior, None
    generator = torch.Generator().manual_seed(seed)
    rows = Rows(problem, plate, posterior)
    probes = posterior.sample(PROBED, seed)
    whole = rows.of_all(probes)
    size = num_rows or ROWS
    while 2 * size <= total:
        chosen = torch.randint(total, (size,), generator=generator).sort().values
        made = rows.sampled(chosen, whole, probes)
        if made is None:
            return posterior, None
        if made.sample.noise <= QUIET:
            held = copy.copy(posterior)
            held.problem = made
            return held, made.sample
        size *= 4
    return posterior, None


def _is_row_by_row(problem: Problem, plate: str) -> bool:
    """Whether rows may stand for others as far as can be told without running the model."""
    found = problem.plates[plate]
    leaves = tree_leaves((problem.args, dict(problem.kwargs)))
    return (
        found.subsample_size == found.size
        and set(problem.drawn) == set(problem.continuous)
        and not any(plate in site.plates for site in problem.drawn.values())
        and any(is_of_rows(leaf, found.size) for leaf in leaves)
    )


@dataclass(frozen=True)
class Said:
    """What rows say at a point: their log likelihood there, its gradient, and the density of all else."""

    prior: Tensor
    value: Tensor
    slope: Tensor


@dataclass(frozen=True)
class SaidByAll(Said):
    """The same of all rows, and their log joint at some draws ``[HELD]``."""

    log_joint: Tensor


class Rows:
    """The rows of a problem, of which some are read at a time.

    Attributes:
        at: the point u* about which shares of rows are expanded: the posterior's mean.
    """

    def __init__(self, problem: Problem, plate: str, posterior: Posterior):
        self.problem, self.plate = problem, plate
        self.total = problem.plates[plate].size
        self.arguments = (problem.args, dict(problem.kwargs))
        leaves = [x for x in tree_leaves(self.arguments) if is_of_rows(x, self.total)]
        wide = sum(leaf[:1].numel() * leaf.element_size() for leaf in leaves)
        self.batch = max(ROWS, BATCH_BYTES // max(1, wide))
        few = self.of(torch.arange(min(self.total, PARTS)))
        self.space = UnconstrainedSpace(few)
        self.at = self.space.from_values(posterior.mean()).detach()

    def of(self, rows: Tensor) -> Problem:
        """The problem of some rows."""
        args, kwargs = cut(self.arguments, self.total, rows)
        made = Problem(self.problem.model, *args, **kwargs)
        return made.with_params(self.problem.params) if self.problem.has_given_params else made

    def said(self, problem: Problem) -> Said:
        """The log likelihood at u* and its gradient."""
        alone = problem.counting(self.plate, 0.0)
        with torch.enable_grad():
            at = self.at.clone().requires_grad_()
            values = self.space.to_values(at)
            prior = alone.factors(values).log_density()
            value = problem.factors(values).log_density() - prior
            (slope,) = torch.autograd.grad(value, at)
        return Said(prior.detach().double(), value.detach().double(), slope.double())

    def of_all(self, probes: Mapping[str, Tensor]) -> SaidByAll:
        """One pass over all rows, a batch at a time."""
        value, slope = torch.zeros(()).double(), torch.zeros_like(self.at).double()
        prior, some = value, _few(probes)
        log_joint = torch.zeros(HELD).double()
        for start in range(0, self.total, self.batch):
            end = min(start + self.batch, self.total)
            read = self.of(torch.arange(start, end))
            part = self.said(read)
            prior, value, slope = part.prior, value + part.value, slope + part.slope
            log_joint = log_joint + self.likelihood(read, some)
        alone = read.counting(self.plate, 0.0).log_joint(some).detach().double()
        return SaidByAll(prior, value, slope, alone + log_joint)

    def likelihood(self, problem: Problem, values: Mapping[str, Tensor]) -> Tensor:
        """The log likelihood of a problem's rows at draws, ``[n]``."""
        with torch.no_grad():
            alone = problem.counting(self.plate, 0.0).log_joint(values)
            return problem.log_joint(values).double() - alone.double()

    def sampled(
        self, chosen: Tensor, whole: SaidByAll, probes: Mapping[str, Tensor]
    ) -> SampledProblem | None:
        """The problem of these rows in the place of all; None where shares of rows do not add up."""
        weight = self.total / len(chosen)
        small = self.of(chosen)
        own = self.said(small)
        parts = [self.of(rows) for rows in chosen.tensor_split(PARTS)]
        said = [self.said(part) for part in parts]
        added = torch.stack([part.value for part in said]).sum()
        priors = torch.stack([part.prior for part in said])
        if not (
            torch.allclose(added, own.value, rtol=DIGITS)
            and torch.allclose(priors, own.prior, rtol=DIGITS)
        ):
            return None
        constant, slope = whole.value - weight * own.value, whole.slope - weight * own.slope
        counted = small.counting(self.plate, weight)
        sample = RowSample(len(chosen), self.total, self._noise(chosen, parts, said, probes))
        made = SampledProblem.of(counted, sample, self.at, constant, slope)
        with torch.no_grad():
            off = made.log_joint(_few(probes)).double() - whole.log_joint
        found = float(off.square().mean().sqrt())
        if not found <= BEYOND * sample.noise:
            made.sample = replace(sample, noise=found)
        return made

    def _noise(
        self,
        chosen: Tensor,
        parts: list[Problem],
        said: list[Said],
        probes: Mapping[str, Tensor],
    ) -> float:
        """Root mean square over the probes of the standard error that the parts' spread gives."""
        delta = (self.space.from_values(probes) - self.at).double()
        left = []
        for part, rows, own in zip(parts, chosen.tensor_split(PARTS), said, strict=True):
            rest = self.likelihood(part, probes) - own.value - delta @ own.slope
            left.append(rest * self.total / len(rows))
        error = torch.stack(left).var(0) / PARTS
        return math.sqrt(float(error.mean()))


def _few(probes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:HELD] for name, value in probes.items()}
