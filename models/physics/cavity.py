r"""How many photons are in a cavity, given when it was seen to lose one.

Each photon leaks out with rate κ and is seen with probability η. What is known of their number n is p_n:

    no click for a time t:   d p_n/dt = -κ n p_n + (1-η) κ (n+1) p_n+1,      then normalised
    a click:                 p_n ← (n+1) p_n+1 / ⟨n⟩

(the second law is Bayes' rule, likelihood ∝ n, and the loss of the photon that was seen). So after a click

    ⟨n⟩ → ⟨n(n-1)⟩ / ⟨n⟩ = g₂ ⟨n⟩

and with g₂ > 1, light that comes in bunches, *a decay raises the expected number*: thermal light doubles it,
g₂ = 2. A Poisson distribution, g₂ = 1, learns nothing from a click and everything there is from the clock;
a Fock state of N, g₂ = 1 - 1/N, loses the one photon it lost.

As a Pyro model, ``model``: the clicks in a window of length T, whose number is binomial, each photon being seen
with probability η(1 - e^-κT); which of several sources feeds the cavity is unknown too.

Reference: R. Glauber, "The quantum theory of optical coherence", Phys. Rev. 130, 1963; M. Ueda, N. Imoto,
T. Ogawa, "Quantum theory for continuous photodetection processes", PRA 41, 1990.
"""

import math
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example

MEAN, MOST, EFFICIENCY = 3.0, 60, 0.6
"""Of the example: photons expected, the most that are thought of, and how many clicks are heard."""


def thermal(mean: float, most: int = MOST) -> Tensor:
    """p_n ∝ (⟨n⟩/(1+⟨n⟩))ⁿ, n = 0 … most: [most + 1]."""
    n = _numbers(mean, most)
    return (n * math.log(mean / (1 + mean))).softmax(0)


def poisson(mean: float, most: int = MOST) -> Tensor:
    """p_n ∝ ⟨n⟩ⁿ/n!, the number in a laser's light: [most + 1]."""
    n = _numbers(mean, most)
    return (n * math.log(mean) - torch.lgamma(n + 1)).softmax(0)


def fock(number: int, most: int = MOST) -> Tensor:
    """Exactly so many: [most + 1]."""
    if not 0 <= number <= most:
        raise OptionError(f"number: expected 0 to {most} (most), got {number}.")
    return torch.zeros(most + 1, dtype=torch.float64).index_fill(0, torch.tensor([number]), 1.0)


def _numbers(mean: float, most: int) -> Tensor:
    if not mean > 0 or most < 1:
        raise OptionError(f"expected a positive mean and most from 1, got {mean} and {most}.")
    return torch.arange(most + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Cavity:
    """What is known of the photons in a cavity: probabilities p_n [N + 1].

    >>> cavity = Cavity(thermal(2.0, most=400))
    >>> round(cavity.mean, 6), round(cavity.clicked().mean, 6), round(cavity.bunching, 6)
    (2.0, 4.0, 2.0)

    Args:
        number: p_n for n = 0 … N.
        rate: κ, photons lost per photon and time.
        efficiency: η, the share of lost ones that are seen.
    """

    number: Tensor
    rate: float = 1.0
    efficiency: float = 1.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or not 0 < self.efficiency <= 1:
            raise OptionError(
                f"Cavity: expected a positive rate and 0 < efficiency <= 1, got {self.rate} and {self.efficiency}."
            )
        p = self.number
        if p.dim() != 1 or not bool((p >= 0).all()) or abs(float(p.sum()) - 1) > 1e-9:
            raise OptionError("number: expected probabilities [N + 1] that sum to 1.")

    @property
    def mean(self) -> float:
        """⟨n⟩."""
        return float(self.number @ self._n)

    @property
    def bunching(self) -> float:
        """g₂ = ⟨n(n-1)⟩ / ⟨n⟩²."""
        return float(self.number @ (self._n * (self._n - 1))) / self.mean**2

    def clicked(self) -> "Cavity":
        """After a photon was seen to leave."""
        if not self.mean > 0:
            raise DataError("a photon was seen to leave, and the cavity is known to be empty.")
        left = torch.cat([(self._n * self.number)[1:], self.number.new_zeros(1)])
        return self._with(left)

    def waited(self, time: float) -> "Cavity":
        """After a time without a click."""
        return self._with(self._unseen(time))

    def log_survival(self, time: float) -> float:
        """log P(no click for ``time``)."""
        return float(self._unseen(time).sum().log())

    def _unseen(self, time: float) -> Tensor:
        """p_n and no click in ``time``: each photon stays with e^-κt, or leaves unseen."""
        if not time >= 0:
            raise OptionError(f"time: expected at least 0, got {time}.")
        if self.efficiency == 1:
            return self.number * torch.exp(-self.rate * time * self._n)
        stays = math.exp(-self.rate * time)
        lost = (1 - self.efficiency) * (1 - stays)
        # Σ_n p_n C(n, k) stays^k lost^(n-k): photons leave independently of each other
        n, k = self._n, self._n[:, None]
        choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp(min=0) + 1)
        power = (
            choose + -k * self.rate * time + (n - k).clamp(min=0) * math.log(lost)
            if lost
            else choose
        )
        return torch.where(n >= k, power.exp() if lost else (n == k).double(), 0.0) @ self.number

    def watched(self, clicks: Tensor, until: float) -> "Cavity":
        """After clicks at increasing times [K], and silence up to ``until``."""
        cavity, now = self, 0.0
        for click in clicks.tolist():
            cavity, now = cavity.waited(click - now).clicked(), click
        return cavity.waited(until - now)

    @property
    def _n(self) -> Tensor:
        return torch.arange(len(self.number), dtype=self.number.dtype)

    def _with(self, weights: Tensor) -> "Cavity":
        return Cavity(weights / weights.sum(), self.rate, self.efficiency)


def clicks_table(efficiency: float, time: float, rate: float = 1.0, most: int = MOST) -> Tensor:
    """P(k clicks in a window | n photons at its start), binomial, [most + 1 (n), most + 1 (k)]."""
    if not 0 < efficiency <= 1 or not time > 0 or not rate > 0:
        raise OptionError(
            f"expected 0 < efficiency <= 1, a positive time and rate, got {efficiency}, {time}, {rate}."
        )
    seen = efficiency * -math.expm1(-rate * time)
    n = torch.arange(most + 1, dtype=torch.float64)
    k = n
    room = (n[:, None] - k).clamp(min=0)
    choose = torch.lgamma(n[:, None] + 1) - torch.lgamma(k + 1) - torch.lgamma(room + 1)
    return torch.where(
        k <= n[:, None],
        # 0 log 0 = 0 where none is left
        (choose + k * math.log(seen) + torch.special.xlogy(room, 1 - seen)).exp(),
        0.0,
    )


def model(clicks: Tensor, sources: Tensor, table: Tensor) -> None:
    """Sites: ``source`` [], which of S feeds the cavity; ``photons`` and ``clicks`` in plate *windows*.

    Args:
        clicks: heard in each window, after which the cavity is filled anew, [M].
        sources: p_n of each source, [S, N + 1].
        table: P(k | n), [N + 1, N + 1], from ``clicks_table``.
    """
    if clicks.dtype.is_floating_point or clicks.dim() != 1 or bool((clicks < 0).any()):
        raise DataError(f"clicks: expected counts [M], got {clicks.dtype} {list(clicks.shape)}.")
    even = torch.full_like(sources[:, 0], 1 / len(sources))
    source = pyro.sample("source", dist.Categorical(even))
    with pyro.plate("windows", len(clicks)):
        photons = pyro.sample("photons", dist.Categorical(sources[source]))
        pyro.sample("clicks", dist.Categorical(table[photons]), obs=clicks)


def exact_log_evidence(clicks: Tensor, sources: Tensor, table: Tensor) -> float:
    """log Σ_s 1/S Π_m Σ_n p_n|s P(k_m | n)."""
    by_source = (sources @ table)[:, clicks].log().sum(1)
    return float(by_source.logsumexp(0)) - math.log(len(sources))


model.exact_log_evidence = exact_log_evidence  # type: ignore[attr-defined]


def simulate(
    number: Tensor, until: float, *, rate: float = 1.0, efficiency: float = 1.0, seed: int = 0
) -> tuple[Tensor, int]:
    """Times of the clicks [K] of one cavity, and how many photons are left at the end."""
    generator = torch.Generator().manual_seed(seed)
    start = int(torch.multinomial(number, 1, generator=generator))
    chances = torch.rand(2, start, generator=generator, dtype=torch.float64)
    left_at = -torch.log1p(-chances[0]) / rate
    gone = left_at < until
    return left_at[gone & (chances[1] < efficiency)].sort().values, start - int(gone.sum())


def example(seed: int) -> Example:
    """Clicks of thirty windows; is the light thermal or a laser's?"""
    sources = torch.stack([poisson(MEAN), thermal(MEAN)])
    table = clicks_table(EFFICIENCY, 1.0)
    clicks = [
        len(simulate(sources[1], 1.0, efficiency=EFFICIENCY, seed=1000 * seed + i)[0])
        for i in range(30)
    ]
    return Example(
        model,
        (torch.tensor(clicks), sources, table),
        "clicks of 30 windows, thermal light (simulated)",
        pictures=pictures,
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """Of each source: how many photons there were when the busiest window began, and what was thought before."""
    from vitools.models.physics.pictures import plot_numbers

    given = posterior.problem.arguments
    sources, table, most = given["sources"], given["table"], int(given["clicks"].max())
    rows = {}
    for name, source in zip(("laser", "thermal"), sources, strict=False):
        after = source * table[:, most]
        rows[name] = (source, after / after.sum())
    return {"photons": plot_numbers(rows, f"given {most} clicks")}
