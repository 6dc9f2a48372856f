"""A comparison that tries everything at the page: hostile names, many entries, correlations."""

from functools import cache

import pyro
import pyro.distributions as dist
import torch

from vitools import Problem, compare
from vitools.posterior import DrawsPosterior, FactorisedPosterior, History, Status

HOSTILE = (
    "</script><script>window.injected=1</script><img src=x onerror=window.injected=1>&\"'{{x}}"
)
ENTRIES = 30


def model(x):
    one = x.new_ones(())
    many = pyro.sample("many", dist.Normal(x.new_zeros(ENTRIES), one).to_event(1))
    extra = pyro.sample(HOSTILE, dist.Normal(0 * one, one))
    pyro.sample("x", dist.Normal(many.sum() + extra, one), obs=x)


@cache
def hostile_comparison():
    """Two factorised fits, one far too narrow, against draws with correlations."""
    generator = torch.Generator().manual_seed(0)
    problem = Problem(model, torch.tensor(1.0).double())
    # many | x: precision I + 11ᵀ, of which the shared part makes all entries correlate
    size = ENTRIES + 1
    precision = torch.eye(size).double() + 1.0
    root = torch.linalg.cholesky(torch.linalg.inv(precision))
    draws = torch.randn(2, 400, size, generator=generator, dtype=torch.float64) @ root.mT
    draws[..., 1] = 0.8 * draws[..., 0] + 0.6 * draws[..., 1]
    chains = DrawsPosterior(
        problem,
        {"many": draws[..., :ENTRIES], HOSTILE: draws[..., ENTRIES]},
        engine="nuts",
        status=Status.SAMPLED,
        seconds=12.5,
    )

    def fit(scale, seconds):
        zero = torch.zeros(ENTRIES).double()
        q = {
            "many": torch.distributions.Independent(
                torch.distributions.Normal(zero, zero + scale), 1
            ),
            HOSTILE: torch.distributions.Normal(zero[0], zero[0] + scale),
        }
        history = History(
            list(range(50)), [-90.0 + i for i in range(50)], [seconds * i / 50 for i in range(50)]
        )
        return FactorisedPosterior(
            problem,
            q,
            0.0,
            engine=HOSTILE,
            status=Status.CONVERGED,
            history=history,
            seconds=seconds,
        )

    return compare({HOSTILE: fit(0.98, 3.0), "narrow": fit(0.2, 0.04), "chains": chains})
