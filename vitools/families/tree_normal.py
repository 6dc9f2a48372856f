"""A normal over the numbers of a tree of groups: t = (x, x_i x_j where the precision has entries).

η = (Pμ, -P/2), both linear in the number of groups (:mod:`vitools.elimination`). An entry that stands for
itself and its mirror image counts twice.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor
from torch.distributions import Distribution, constraints

from vitools.elimination import Factor, Level, Tree
from vitools.families.family import Family, Natural, narrow, noise
from vitools.families.normal import NormalFamily

REMEMBERED = 4
"""Members whose means are kept: those that an extrapolation starts from."""


class TreeNormalFamily(Family):
    name = "TreeNormal"
    title = "MultivariateNormal by elimination"
    statistics = (1.0, "outer")
    event_dims = (1, 1)
    support = constraints.real_vector
    is_gaussian = True

    def __init__(self, tree: Tree):
        self.tree = tree
        self._means: deque[tuple[Natural, Tensor]] = deque(maxlen=REMEMBERED)

    def mean(self, natural: Natural) -> Tensor:
        """μ; of members that were normalised lately, as an accelerator asks for, without a solution."""
        for known, mean in self._means:
            if all(a is b for a, b in zip(known, natural, strict=True)):
                return mean
        return self.factor(natural).solve(natural[0])

    def factor(self, natural: Natural) -> Factor:
        return Factor(self.tree, -2 * natural[1])

    def log_normaliser(self, natural: Natural) -> Tensor:
        return self.normalised(natural)[0]

    def mean_parameters(self, natural: Natural) -> Natural:
        return self.normalised(natural)[1]

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        mean, covariance, log_root = self.mean_and_covariance(natural)
        size = self.tree.size
        normaliser = (natural[0] * mean).sum(-1) / 2 - log_root + size / 2 * math.log(2 * math.pi)
        return normaliser, (mean, covariance + self.tree.outer(mean))

    def mean_and_covariance(self, natural: Natural) -> tuple[Tensor, Tensor, Tensor]:
        """μ, the entries of Σ, and ½ log|P|, nan where P is not positive definite."""
        factor = self.factor(natural)
        mean, log_root = factor.solve(natural[0]), factor.log_determinant() / 2
        if not is_batchedtensor(mean):  # which is of no use once the runs are apart again
            self._means.append((natural, mean))
        return mean, factor.inverse_entries(), log_root

    def inner(self, natural: Natural, mean: Natural) -> Tensor:
        pairs = natural[1] * mean[1] * self.tree.multiplicity
        return (natural[0] * mean[0]).sum(-1) + pairs.sum()

    def to_distribution(self, natural: Natural) -> TreeNormal:
        positions = torch.arange(self.tree.size)
        return TreeNormal(self.mean(natural), -2 * natural[1], stored(self.tree), positions)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, TreeNormal)
        mean = torch.zeros(self.tree.size, dtype=distribution.loc.dtype)
        mean[distribution.positions] = distribution.loc
        return self.tree.times(distribution.precision, mean), -distribution.precision / 2

    def proper(self, natural: Natural) -> Tensor:
        """Positive definite beyond rounding."""
        finite = natural[0].isfinite().all() & natural[1].isfinite().all()
        factor = self.factor(natural)
        return finite & factor.is_proper & (factor.pivots() > self.rounding).all()

    @property
    def rounding(self) -> float:
        """What is left of the precision of an element that the others determine."""
        return 8 * max(8, self.tree.root) * torch.finfo(torch.float64).eps

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """A standard normal mean, of unit covariance."""
        return self.with_moments(noise(prior[0], generator), torch.ones_like(prior[0]))

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        """Without correlations."""
        variance = narrow(mean) if variance is None else variance
        quadratic = torch.zeros(self.tree.count, dtype=mean.dtype)
        quadratic[self.tree.diagonal] = -0.5 / variance
        return mean / variance, quadratic

    def coordinates(self, natural: Natural) -> Natural:
        return self.mean(natural), natural[1]

    def from_coordinates(self, point: Natural) -> Natural:
        return self.tree.times(-2 * point[1], point[0]), point[1]

    def words(self, total: Callable[..., str]) -> str:
        return NormalFamily().words(total)


class TreeNormal(Distribution):
    """The values of several sites one after another, [size], or of one in its own shape.

    Args:
        loc: the mean, of the shape of the value.
        precision: entries in the layout of the tree.
        structure: the tree, as :func:`stored` writes it.
        positions: the tree's number of each element of the value; others are N(0, 1) apart from them.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        precision: Tensor,
        structure: Tensor,
        positions: Tensor,
        validate_args: bool | None = None,
    ):
        self.loc, self.precision, self.structure = loc, precision, structure
        self.positions = positions
        self.tree = restored(structure)
        self._made: Factor | None = None
        self._variance: Tensor | None = None
        super().__init__(torch.Size(), loc.shape, validate_args=False)

    @property
    def factor(self) -> Factor:
        if self._made is None:
            self._made = Factor(self.tree, self.precision)
        return self._made

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        if self._variance is None:
            entries = self.factor.inverse_entries()
            self._variance = entries[self.tree.diagonal][self.positions]
        return self._variance

    def covariance_of(self, index: Tensor) -> Tensor:
        """The whole covariance of some elements [n] of a value in a row: [n, n]."""
        unit = torch.zeros(len(index), self.tree.size, dtype=self.loc.dtype)
        unit[torch.arange(len(index)), self.positions[index]] = 1
        own = self.factor.solve(unit)[:, self.positions[index]]
        return (own + own.mT) / 2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = (*sample_shape, self.tree.size)
        draws = self.factor.spread(torch.randn(shape, dtype=self.loc.dtype))
        return self.loc + draws[..., self.positions]

    def log_prob(self, value: Tensor) -> Tensor:
        error = value - self.loc
        lead = error.shape[: error.dim() - self.loc.dim()]
        apart = torch.zeros(*lead, self.tree.size, dtype=error.dtype)
        apart[..., self.positions.flatten()] = error.reshape(*lead, -1)
        distance = (apart * self.tree.times(self.precision, apart)).sum(-1)
        return -self._log_normaliser() - distance / 2

    def entropy(self) -> Tensor:
        return self._log_normaliser() + self.loc.numel() / 2

    def _log_normaliser(self) -> Tensor:
        return (self.loc.numel() * math.log(2 * math.pi) - self.factor.log_determinant()) / 2


TreeNormalFamily.members = {TreeNormal: ("loc", "precision", "structure", "positions")}


def stored(tree: Tree) -> Tensor:
    """A tree as whole numbers.

    The numbers that the root has and, less one so that none is mistaken for what older files hold, the
    negative of how many levels there are; of each level groups, width, length, parents and columns, which are
    preceded by how many there are, -1 for columns of the whole root.
    """
    numbers = [torch.tensor([tree.root, -1 - len(tree.levels)])]
    for level in tree.levels:
        numbers.append(torch.tensor([level.groups, level.width, level.length, len(level.parents)]))
        for j, group in level.parents.items():
            numbers += [torch.tensor([j]), group]
        columns = level.columns
        if columns is None:
            numbers.append(torch.tensor([-1]))
        else:
            numbers += [torch.tensor([columns.shape[1]]), columns.flatten()]
    return torch.cat(numbers)


def restored(structure: Tensor) -> Tree:
    """The tree that :func:`stored` wrote; in files before there were chains, levels have no length."""
    place = 0

    def take(count: int) -> Tensor:
        nonlocal place
        place += count
        return structure[place - count : place]

    root, count = take(2).tolist()
    has_lengths = count < 0
    levels = []
    for _ in range(-1 - count if has_lengths else count):
        groups, width = take(2).tolist()
        length = int(take(1)) if has_lengths else 1
        above = {}
        for _ in range(int(take(1))):
            number = int(take(1))
            above[number] = take(groups)
        pairs = int(take(1))
        columns = None if pairs < 0 else take(2 * pairs).reshape(2, pairs)
        levels.append(Level(groups, width, above, columns, length))
    return Tree(levels, root)
