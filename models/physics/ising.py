r"""Spins that pull at each other: the Ising model and the Boltzmann machine.

    p(s) = exp(Σ_bonds K_ij s_i s_j + Σ_i h_i s_i) / Z,        s_i = ±1

K = βJ and h = βB. Written for Pyro: independent fair coins ``up_i``, s_i = 2 up_i - 1, and a ``pyro.factor`` for
each bond, so that log p(all factors) = log Z - N log 2. With couplings of any sign between any two, learnt from
data, it is a Boltzmann machine.

Mean field, which is what ``cavi(problem, factorised="all")`` does with it: each spin feels the mean of its
neighbours, m_i = tanh(h_i + Σ_j K_ij m_j), and log Z ≥ Σ K_ij m_i m_j + Σ h_i m_i + Σ H(m_i), the (negative)
variational free energy. It is exact where every spin has many neighbours; in one dimension, where there
is no order at any temperature, it is wrong about everything but the free energy.

Exact: ``log_partition`` by transfer matrices (from row to row of a lattice), ``magnetisation`` by
enumeration; in one dimension Z = λ₊ᴺ + λ₋ᴺ; the infinite square lattice is Onsager's. ``sample`` is Gibbs's.

References: E. Ising 1925; L. Onsager 1944; C. Yang 1952; D. Ackley, G. Hinton, T. Sejnowski, "A learning algorithm for
Boltzmann machines", 1985; D. MacKay, "Information theory, inference, and learning algorithms", 2003, ch. 31.
"""

import itertools
import math
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.models import Example

ENUMERATED = 20
"""Spins up to which all 2^N states are written down."""


@dataclass(frozen=True)
class Spins:
    """Bonds [B, 2] between sites, the coupling of each [B], and the field at each site [N]."""

    bonds: Tensor
    coupling: Tensor
    field: Tensor

    def __post_init__(self) -> None:
        size, count = self.field.numel(), len(self.bonds)
        if self.bonds.shape != (count, 2) or self.coupling.shape != (count,):
            raise OptionError(
                f"Spins: expected bonds [B, 2] and a coupling [B] for each, got {list(self.bonds.shape)} "
                f"and {list(self.coupling.shape)}."
            )
        if count and not bool(
            ((self.bonds >= 0) & (self.bonds < size)).all()
            & (self.bonds[:, 0] != self.bonds[:, 1]).all()
        ):
            raise OptionError(f"bonds: expected two different sites, 0 to {size - 1}, for each.")

    @property
    def matrix(self) -> Tensor:
        """K, symmetric, [N, N]."""
        size = len(self.field)
        table = torch.zeros(size, size, dtype=self.field.dtype)
        table.index_put_(tuple(self.bonds.T), self.coupling, accumulate=True)
        return table + table.T

    def log_weight(self, spins: Tensor) -> Tensor:
        """log p(s) + log Z of ``spins`` [..., N], each ±1."""
        first, second = spins[..., self.bonds[:, 0]], spins[..., self.bonds[:, 1]]
        return (first * second) @ self.coupling + spins @ self.field


def lattice(
    shape: tuple[int, ...], coupling: float, field: float = 0.0, *, periodic: bool = False
) -> Spins:
    """Spins on a lattice of any dimension, each bound to its nearest neighbours."""
    if not shape or any(not isinstance(n, int) or n < 2 for n in shape):
        raise OptionError(f"shape: expected whole numbers from 2 for each direction, got {shape}.")
    if periodic and min(shape) < 3:
        raise OptionError(f"shape: a periodic direction needs 3 sites at least, got {shape}.")
    sites = torch.arange(math.prod(shape)).reshape(shape)
    found = []
    for axis, count in enumerate(shape):
        ahead = sites.roll(-1, axis)
        if not periodic:
            sites_here, ahead = sites.narrow(axis, 0, count - 1), ahead.narrow(axis, 0, count - 1)
        else:
            sites_here = sites
        found.append(torch.stack([sites_here.flatten(), ahead.flatten()], 1))
    bonds = torch.cat(found)
    return Spins(
        bonds,
        torch.full((len(bonds),), float(coupling), dtype=torch.float64),
        torch.full((sites.numel(),), float(field), dtype=torch.float64),
    )


def model(bonds: Tensor, coupling: Tensor, field: Tensor) -> None:
    """Sites ``up_0`` … [], each 0 or 1; a factor ``bond_0`` … for each bond, ``field_0`` … for each spin.

    Args:
        bonds: two sites for each, [B, 2].
        coupling: K of each bond, [B].
        field: h of each spin, [N].
    """
    fair = torch.full_like(field[0], 0.5)
    spins = [2 * pyro.sample(f"up_{i}", dist.Bernoulli(fair)) - 1 for i in range(len(field))]
    for i, spin in enumerate(spins):
        pyro.factor(f"field_{i}", field[i] * spin)
    for b, (i, j) in enumerate(bonds.tolist()):
        pyro.factor(f"bond_{b}", coupling[b] * spins[i] * spins[j])


def exact_log_evidence(bonds: Tensor, coupling: Tensor, field: Tensor) -> float:
    """log Z - N log 2, for up to 20 spins."""
    given = Spins(bonds, coupling, field)
    return float(given.log_weight(states(len(field))).logsumexp(0)) - len(field) * math.log(2)


model.exact_log_evidence = exact_log_evidence  # type: ignore[attr-defined]


def states(size: int) -> Tensor:
    """All 2^N configurations, [2^N, N], of ±1."""
    if not 1 <= size <= ENUMERATED:
        raise OptionError(f"expected 1 to {ENUMERATED} spins to enumerate, got {size}.")
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=size)), dtype=torch.float64)


def magnetisation(spins: Spins) -> Tensor:
    """⟨s_i⟩, [N], by enumeration."""
    every = states(len(spins.field))
    return spins.log_weight(every).softmax(0) @ every


def log_partition(shape: tuple[int, int], coupling: float, field: float = 0.0) -> float:
    """log Z of a square lattice with free ends, row by row: L 2^W numbers are kept for W columns.

    The transfer from one row to the next factorises over columns, so that a row of W costs W 2^W.
    """
    rows, columns = shape
    if columns > ENUMERATED:
        raise OptionError(f"shape: expected up to {ENUMERATED} columns, got {columns}.")
    within = lattice((columns,), coupling, field) if columns > 1 else None
    every = states(columns)
    own = within.log_weight(every) if within is not None else field * every[:, 0]
    bond = torch.tensor([[coupling, -coupling], [-coupling, coupling]], dtype=torch.float64)
    total = own
    for _ in range(rows - 1):
        table = total.reshape((2,) * columns)
        for axis in range(columns):
            # Σ over the spin above in this column, and the spin below takes its place
            moved = table.movedim(axis, -1)
            table = (moved.unsqueeze(-2) + bond).logsumexp(-1).movedim(-1, axis)
        total = table.flatten() + own
    return float(total.logsumexp(0))


def chain_log_partition(size: int, coupling: float, field: float = 0.0) -> float:
    """log Z of a ring of N spins: λ₊ᴺ + λ₋ᴺ, λ± = e^K cosh h ± √(e^2K sinh² h + e^-2K)."""
    K, h = torch.tensor(float(coupling)).double(), torch.tensor(float(field)).double()
    root = (torch.exp(2 * K) * torch.sinh(h) ** 2 + torch.exp(-2 * K)).sqrt()
    large, small = torch.exp(K) * torch.cosh(h) + root, torch.exp(K) * torch.cosh(h) - root
    return float(size * large.log() + torch.log1p((small / large) ** size))


def chain_magnetisation(coupling: float, field: float) -> float:
    """⟨s⟩ of an endless chain: sinh h / √(sinh² h + e^-4K)."""
    return math.sinh(field) / math.sqrt(math.sinh(field) ** 2 + math.exp(-4 * coupling))


def onsager_magnetisation(coupling: float) -> float:
    """⟨s⟩ of the endless square lattice without field (Yang 1952): (1 - sinh(2K)⁻⁴)^⅛ above K = .4407."""
    if coupling <= math.asinh(1) / 2:
        return 0.0
    return (1 - math.sinh(2 * coupling) ** -4) ** 0.125


def mean_field_magnetisation(coupling: float, field: float, neighbours: int) -> float:
    """The stable root of m = tanh(h + z K m) (positive where there are two), by iteration to its end."""
    m = 1.0
    for _ in range(100_000):
        last, m = m, math.tanh(field + neighbours * coupling * m)
        if abs(m - last) < 1e-15:
            break
    return m


def sample(
    spins: Spins, num_samples: int, *, num_warmup: int = 200, chains: int = 64, seed: int = 0
) -> Tensor:
    """Draws [num_samples, N] of ±1 by heat baths: ``chains`` of them side by side, a sweep between draws.

    Neighbours in time are correlated; a Monte Carlo error comes from means of the chains,
    ``draws.reshape(-1, chains, N).mean(0).std(0) / chains ** .5``.
    """
    if num_samples % chains:
        raise OptionError(
            f"num_samples: expected a multiple of {chains} (chains), got {num_samples}."
        )
    generator = torch.Generator().manual_seed(seed)
    size = len(spins.field)
    matrix = spins.matrix
    at = torch.randint(2, (chains, size), generator=generator).double() * 2 - 1
    kept = []
    for sweep in range(num_warmup + num_samples // chains):
        chances = torch.rand(size, chains, generator=generator, dtype=torch.float64)
        for i in range(size):
            pull = spins.field[i] + at @ matrix[i]
            at[:, i] = torch.where(chances[i] < torch.sigmoid(2 * pull), 1.0, -1.0).double()
        if sweep >= num_warmup:
            kept.append(at.clone())
    return torch.cat(kept)


def learn(data: Tensor, *, max_steps: int = 500) -> Spins:
    """A Boltzmann machine, all seen: couplings and fields of largest likelihood for ``data`` [M, N] of ±1.

    The gradient is ⟨s_i s_j⟩ of the data less that of the model (Ackley, Hinton, Sejnowski 1985), exact by
    enumeration up to 20 spins; the likelihood is concave.
    """
    if data.dim() != 2 or not bool((data.abs() == 1).all()):
        raise OptionError(f"data: expected spins of ±1, [M, N], got {list(data.shape)}.")
    size = data.shape[1]
    bonds = torch.tensor(list(itertools.combinations(range(size), 2))).reshape(-1, 2)
    data, every = data.double(), states(size)
    pairs = every[:, bonds[:, 0]] * every[:, bonds[:, 1]]
    features = torch.cat([pairs, every], 1)
    seen = torch.cat([data[:, bonds[:, 0]] * data[:, bonds[:, 1]], data], 1).mean(0)
    weights = torch.zeros_like(seen, requires_grad=True)
    climb = torch.optim.LBFGS([weights], lr=1.0, max_iter=max_steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        climb.zero_grad()
        # a pull of one row towards 0 keeps couplings of perfectly aligned spins finite
        value = (features @ weights).logsumexp(0) - seen @ weights
        value = value + 0.5 * weights.square().sum() / len(data)
        value.backward()
        return value

    climb.step(loss)
    found = weights.detach()
    return Spins(bonds, found[: len(bonds)], found[len(bonds) :])


def example(seed: int) -> Example:
    """A square of 4 × 4 spins in a weak field, a little above the temperature of order."""
    spins = lattice((4, 4), 0.3, 0.1)
    return Example(
        model,
        (spins.bonds, spins.coupling, spins.field),
        "4 × 4 spins, K = 0.3, h = 0.1 (nothing is simulated)",
    )
