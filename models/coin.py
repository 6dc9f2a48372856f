"""The smallest model there is: the bias of a coin, with its posterior known exactly.

p ~ Beta(a, b); heads_n ~ Bernoulli(p). The posterior is Beta(a + Σ heads, b + N - Σ heads)
and log p(heads) = log B(a + Σ heads, b + N - Σ heads) - log B(a, b).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.models import Example


def model(flips: Tensor, a: float = 1.0, b: float = 1.0) -> Tensor:
    """Beta-Bernoulli. ``flips``: ``[N]`` of 0 and 1."""
    p = pyro.sample("p", dist.Beta(torch.as_tensor(a).to(flips), torch.as_tensor(b).to(flips)))
    with pyro.plate("flips", len(flips)):
        pyro.sample("heads", dist.Bernoulli(p), obs=flips)
    return p


def simulate(num_flips: int = 20, bias: float = 0.7, seed: int = 0) -> Tensor:
    """``num_flips`` flips of a coin of known ``bias``: ``[num_flips]``, float64."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(num_flips, generator=generator, dtype=torch.float64) < bias).double()


def exact_log_evidence(flips: Tensor, a: float = 1.0, b: float = 1.0) -> float:
    """log p(heads), by the Beta function."""
    heads = float(flips.sum())

    def log_beta(x: float, y: float) -> float:
        x_, y_ = torch.tensor(x).double(), torch.tensor(y).double()
        return float(torch.lgamma(x_) + torch.lgamma(y_) - torch.lgamma(x_ + y_))

    return log_beta(a + heads, b + len(flips) - heads) - log_beta(a, b)


model.exact_log_evidence = exact_log_evidence  # type: ignore[attr-defined]


def example(seed: int) -> Example:
    """Twenty flips of a coin with bias 0.7."""
    return Example(model, (simulate(20, seed=seed),), "20 flips (simulated)")
