"""Have Markov chains mixed? Rank-normalised split R̂, bulk and tail effective sample sizes.

Ranks r of all S draws of an entry become normal scores z = Φ⁻¹((r - 3/8) / (S + 1/4)), so that heavy
tails hide nothing; R̂ is the larger of that of z and that of the folded |θ - median|'s scores, which
sees chains of different spread. The bulk's effective size is that of z, the tail's the smaller of
those of the indicators of the 5 % and 95 % quantiles.

References:
    Vehtari, Gelman, Simpson, Carpenter, Bürkner, *Rank-normalization, folding, and localization:
an improved R̂ for assessing convergence of MCMC*, Bayesian Analysis 16, 2021.
    Geyer, *Practical Markov chain Monte Carlo*, Statistical Science 7, 1992.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pyro.ops.stats import split_gelman_rubin
from scipy.stats import rankdata
from torch import Tensor

from vitools.posterior.results import Status
from vitools.problem import Problem

FEWEST_DRAWS = 4  # split R-hat needs two draws in each half
RHAT_LIMIT = 1.05
ESS_PER_CHAIN = 50
MOST_DIVERGENT = 0.01


@dataclass(frozen=True)
class Mixing:
    """Worst figures of each site (or invariant) over its entries.

    Attributes:
        rhat, bulk, tail: ``{name: value}``; entries that never vary are left out.
        divergences: divergent transitions, of ``transitions`` after warm-up.
        chains: how many.
    """

    rhat: dict[str, float]
    bulk: dict[str, float]
    tail: dict[str, float]
    divergences: int
    transitions: int
    chains: int

    @property
    def ess(self) -> dict[str, float]:
        """The smaller of bulk and tail."""
        return {name: min(size, self.tail[name]) for name, size in self.bulk.items()}

    @property
    def status(self) -> Status:
        """SAMPLED where every figure is within its limit."""
        good = (
            bool(self.rhat)
            and all(value < RHAT_LIMIT for value in self.rhat.values())
            and all(value > ESS_PER_CHAIN * self.chains for value in self.ess.values())
            and self.divergences <= MOST_DIVERGENT * self.transitions
        )
        return Status.SAMPLED if good else Status.NOT_MIXED

    def __str__(self) -> str:
        if not self.rhat:
            return "no chain moved"
        bulk, tail = min(self.bulk.values()), min(self.tail.values())
        words = f"R-hat {max(self.rhat.values()):.2f}, ESS {bulk:.0f}, of the tails {tail:.0f}"
        if self.divergences:
            words += f", {self.divergences} divergence{'s' * (self.divergences > 1)}"
        return words


def measure_mixing(problem: Problem, values: Mapping[str, Tensor], divergences: int = 0) -> Mixing:
    """Of chains ``{site: [chains, draws, *shape]}`` of at least :data:`FEWEST_DRAWS` draws."""
    judged = problem.invariants(dict(values)) if problem.invariants else values
    rhat, bulk, tail = {}, {}, {}
    chains, draws = next(iter(values.values())).shape[:2]
    for name, value in judged.items():
        flat = value.reshape(chains, draws, -1).detach().cpu().double()
        varying = flat.flatten(0, 1).std(0) != 0  # NaN varies: it must not pass for a constant
        if not bool(varying.any()):  # an entry fixed by definition, e.g. a total of one
            continue
        flat = flat[..., varying]
        rhat[name] = float(rank_rhat(flat).max())
        bulk[name], tail[name] = float(bulk_size(flat).min()), float(tail_size(flat).min())
    return Mixing(rhat, bulk, tail, divergences, chains * draws, chains)


def rank_rhat(chains: Tensor) -> Tensor:
    """Rank-normalised split R̂ of ``[chains, draws, P]``: ``[P]``."""
    median = chains.flatten(0, 1).median(0).values
    of_both = [
        split_gelman_rubin(normal_scores(x), 0, 1) for x in (chains, (chains - median).abs())
    ]
    # NaN, of draws that are no numbers, is no agreement
    return torch.stack(of_both).nan_to_num(nan=math.inf).amax(0)


def bulk_size(chains: Tensor) -> Tensor:
    """The bulk's effective sample size of ``[chains, draws, P]``: ``[P]``."""
    return _size(normal_scores(_halves(chains)))


def tail_size(chains: Tensor) -> Tensor:
    """The tails' effective sample size of ``[chains, draws, P]``: ``[P]``."""
    flat = chains.flatten(0, 1)
    sizes = []
    for level in (0.05, 0.95):
        inside = (chains <= torch.quantile(flat, level, dim=0)).double()
        sizes.append(_size(_halves(inside)))
    return torch.stack(sizes).amin(0)


def normal_scores(chains: Tensor) -> Tensor:
    """Φ⁻¹ of the ranks of ``[chains, draws, P]`` among all draws of each entry."""
    flat = chains.flatten(0, 1)
    ranks = torch.as_tensor(rankdata(flat.numpy(), axis=0))
    return torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25)).reshape(chains.shape)


def _halves(chains: Tensor) -> Tensor:
    half = chains.shape[1] // 2
    return torch.cat([chains[:, :half], chains[:, -half:]])


def _size(chains: Tensor) -> Tensor:
    """Effective sample size of ``[chains, draws, P]``, ``[P]``: S / τ by Geyer's sequences.

    τ = -1 + 2 Σ_k P_k over the autocorrelations' pair sums P_k = ρ_2k + ρ_2k+1, made monotone, up to
    the first that is negative. Chains that do not move are one draw; antithetic ones are worth more
    than their number, up to a factor log₁₀ S.
    """
    m, n, total = *chains.shape[:2], chains.shape[0] * chains.shape[1]
    centred = chains - chains.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * n, dim=1)
    covariances = torch.fft.irfft(spectrum.abs().square(), 2 * n, dim=1)[:, :n].mean(0) / n
    within = covariances[0] * n / (n - 1)
    overall = covariances[0] + (chains.mean(1).var(0) if m > 1 else 0.0)
    rho = 1 - (within - covariances) / overall
    rho[0] = 1.0
    even, odd = rho[0 : n - 1 : 2], rho[1:n:2]
    pairs = even[: len(odd)] + odd
    known = (pairs > 0).cummin(0).values
    known[0] = True
    monotone = torch.where(known, pairs, torch.inf).cummin(0).values
    first_left_out = known.sum(0, keepdim=True).clamp(max=len(even) - 1)
    last = even.gather(0, first_left_out).squeeze(0).clamp(min=0.0)
    tau = -1 + 2 * torch.where(known, monotone, 0.0).sum(0) + last
    size = total / tau.clamp(min=1 / max(1.0, math.log10(total)))
    return size.nan_to_num(nan=1.0).clamp(min=1.0)
