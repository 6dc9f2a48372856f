r"""A Gaussian field on a large lattice: its rows are a Markov chain, and elimination along them is exact.

    p(φ) ∝ exp(-½ κ ∫ φ (μ² - ∂²)^order φ),      y = φ_x + σ ε

A row of the lattice knows the rest through its next ``order`` neighbours alone, so that the precision is
block-tridiagonal in groups of so many rows, Q_tt and Q_t,t+1, and measurements at points add 1/σ² to its diagonal:

    Q = Q₀ + Σ e_x e_xᵀ / σ²,      b = Σ e_x y / σ²,      m = Q⁻¹ b
    log p(y) = ½ log|Q₀| - ½ log|Q| - M/2 log 2πσ² - ½ yᵀy / σ² + ½ bᵀ Q⁻¹ b

A lattice of n × n sites takes n⁴ operations (order² as many for rows in groups) and keeps n³ numbers, where the dense
covariance of ``gaussian_field`` takes n⁶ and n⁴: 100 × 100 sites in seconds. The same elimination is the Cholesky
factorisation of a banded matrix; measured points may be as many as there are sites.

Reference: H. Rue, L. Held, "Gaussian Markov random fields", 2005, chapter 2.4.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vitools.elimination.chain import ChainFactor
from vitools.errors import DataError, OptionError
from vitools.models.physics.gaussian_field import check_lattice, check_roughness, laplacian


@dataclass(frozen=True, eq=False)
class LatticeField:
    """What is known of a field on a lattice of two dims: a precision by its blocks, and b.

    Attributes:
        shape: of the lattice, rows first; the fewer the columns the less it costs.
        diagonal: Q_tt, ``[T, d, d]``, of groups of rows; where the last group has a row too many, that one
            is a stranger to the others.
        beside: Q_t,t+1, ``[T - 1, d, d]``.
        towards: b, ``[T, d]``.

    Example:
        >>> field = LatticeField.rough((40, 30), 2.0, order=2, mass=0.5)
        >>> field = field.measure(torch.tensor([0, 777]), torch.tensor([1.0, -1.0]), noise=0.1)
        >>> [round(float(field.mean[x]), 2) for x in (0, 777)]
        [0.98, -0.95]
    """

    shape: tuple[int, int]
    diagonal: Tensor
    beside: Tensor
    towards: Tensor

    @classmethod
    def rough(
        cls,
        shape: tuple[int, int],
        stiffness: float,
        *,
        order: int = 1,
        mass: float,
        spacing: float = 1.0,
    ) -> "LatticeField":
        """The prior whose precision ``gaussian_field.roughness`` writes out; without a mass it has no level."""
        if len(shape) != 2:
            raise OptionError(f"shape: expected rows and columns of a lattice, got {shape}.")
        check_roughness(stiffness, order, mass)
        if not mass > 0:
            raise OptionError(f"mass: expected a positive number, 1 / length, got {mass}.")
        rows, columns = shape
        check_lattice(shape, spacing)
        one, step = torch.eye(columns, dtype=torch.float64), 1 / spacing**2
        along = laplacian((columns,), spacing) + mass**2 * one
        neighbours = torch.full((rows,), 2.0, dtype=torch.float64)
        neighbours[[0, -1]] = 1.0
        own = along + (step * neighbours)[:, None, None] * one  # of μ² - ∂²; beside it stands -step
        links: list[Tensor] = [own, (-step * one).expand(rows - 1, columns, columns)]
        if order == 2:
            links = [
                own @ own + (step**2 * neighbours)[:, None, None] * one,
                -step * (own[:-1] + own[1:]),
                (step**2 * one).expand(rows - 2, columns, columns),
            ]
        volume = stiffness * spacing**2
        diagonal, beside = _grouped([volume * link for link in links], order)
        return cls((rows, columns), diagonal, beside, diagonal.new_zeros(diagonal.shape[:2]))

    def measure(self, at: Tensor, value: Tensor, noise: float) -> "LatticeField":
        """The field once ``value`` [M] has been read at sites ``at`` [M], counted row by row."""
        if not noise > 0:
            raise OptionError(f"noise: expected a positive number, got {noise}.")
        size = math.prod(self.shape)
        if at.dtype.is_floating_point or bool((at < 0).any() | (at >= size).any()):
            raise DataError(f"at: expected sites from 0 to {size - 1}, got {at.dtype}.")
        if at.dim() != 1 or at.shape != value.shape:
            raise DataError(
                f"value: expected a number for each of {list(at.shape)} sites, got {list(value.shape)}."
            )
        flat = self.towards.flatten()
        more = torch.zeros_like(flat).index_add(0, at, torch.ones_like(value, dtype=flat.dtype))
        diagonal = self.diagonal + torch.diag_embed(more.reshape(self.towards.shape) / noise**2)
        towards = flat.index_add(0, at, value.to(flat) / noise**2).reshape(self.towards.shape)
        return LatticeField(self.shape, diagonal, self.beside, towards)

    @cached_property
    def _factor(self) -> ChainFactor:
        return ChainFactor(self.diagonal, self.beside)

    @cached_property
    def mean(self) -> Tensor:
        """``[N]``."""
        half = self._factor.half_solve(self.towards.unsqueeze(-1))
        return self._sites(self._factor.half_solve_transposed(half).squeeze(-1))

    @cached_property
    def sd(self) -> Tensor:
        """Standard deviation at each site, ``[N]``."""
        blocks, _ = self._factor.inverse_blocks()
        return self._sites(blocks.diagonal(dim1=-2, dim2=-1)).sqrt()

    def sample(self, num_samples: int, seed: int = 0) -> Tensor:
        """``[n, N]`` draws."""
        generator = torch.Generator().manual_seed(seed)
        shape = (*self.towards.shape, num_samples)
        noise = torch.randn(shape, generator=generator, dtype=self.towards.dtype)
        drawn = self._factor.half_solve_transposed(noise)
        return self.mean + self._sites(drawn.movedim(-1, 0))

    def log_prob(self, at: Tensor, value: Tensor, noise: float) -> float:
        """log p of measurements that are to come, what was seen before given."""
        after = self.measure(at, value, noise)
        variance = torch.as_tensor(noise**2, dtype=self.towards.dtype)
        squares = (
            after._fit() - self._fit() - value.to(self.towards).square().sum() / (2 * variance)
        )
        volume = self._factor.half_log_determinant() - after._factor.half_log_determinant()
        return float(squares + volume - 0.5 * len(value) * (2 * math.pi * variance).log())

    def _fit(self) -> Tensor:
        """½ bᵀ Q⁻¹ b."""
        return 0.5 * self._factor.half_solve(self.towards.unsqueeze(-1)).square().sum()

    def _sites(self, groups: Tensor) -> Tensor:
        return groups.flatten(-2)[..., : math.prod(self.shape)]


def _grouped(links: list[Tensor], order: int) -> tuple[Tensor, Tensor]:
    """Blocks of so many rows together, from those between rows i and i + k: ``[rows - k, w, w]``."""
    rows, width = links[0].shape[:2]
    groups = -(-rows // order)
    size = order * width
    diagonal = links[0].new_zeros(groups, size, size)
    beside = links[0].new_zeros(groups - 1, size, size)
    if groups * order > rows:
        diagonal[-1].diagonal()[(rows - groups * order) * width :] = 1.0
    for apart, blocks in enumerate(links):
        for row, block in enumerate(blocks):
            group, there = row // order, (row + apart) // order
            first = slice(row % order * width, (row % order + 1) * width)
            second = slice((row + apart) % order * width, ((row + apart) % order + 1) * width)
            if group == there:
                diagonal[group, first, second] = block
                diagonal[group, second, first] = block.mT
            else:
                beside[group, first, second] = block
    return diagonal, beside
