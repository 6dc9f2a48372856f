"""Rank-normalised R-hat and effective sizes, against ArviZ's own."""

import pytest
import torch

from vitools import Problem, Status
from vitools.models import coin
from vitools.posterior.mixing import bulk_size, measure_mixing, rank_rhat, tail_size
from vitools.reporting.arviz.groups import import_arviz

COIN = Problem(coin.model, coin.simulate(20))


def autoregressive(rho, shift=0.0, chains=4, draws=500, seed=0):
    """Gaussian chains [chains, draws, 1] of autocorrelation ρ, the last moved by ``shift``."""
    noise = torch.randn(chains, draws, generator=torch.Generator().manual_seed(seed)).double()
    rows = [noise[:, 0]]
    for i in range(1, draws):
        rows.append(rho * rows[-1] + (1 - rho**2) ** 0.5 * noise[:, i])
    out = torch.stack(rows, 1)
    out[-1] += shift
    return out.unsqueeze(-1)


CASES = {
    "independent": autoregressive(0.0),
    "correlated": autoregressive(0.8, seed=1),
    "apart": autoregressive(0.5, shift=1.0, seed=2),
    "heavy tails": torch.tan(1.5 * torch.tanh(autoregressive(0.3, seed=3))),
    "antithetic": autoregressive(-0.4, seed=4),
}


@pytest.mark.parametrize("name", CASES)
def test_figures_are_those_of_arviz(name):
    chains, az = CASES[name], import_arviz()
    array = chains[..., 0].numpy()
    assert float(rank_rhat(chains)) == pytest.approx(az.rhat(array, method="rank"), abs=2e-3)
    assert float(bulk_size(chains)) == pytest.approx(az.ess(array, method="bulk"), rel=0.03)
    assert float(tail_size(chains)) == pytest.approx(az.ess(array, method="tail"), rel=0.03)


def test_chains_of_different_spread_have_not_mixed():
    chains = autoregressive(0.0, seed=5)
    chains[-1] *= 4
    assert float(rank_rhat(chains)) > 1.05


def coins(unit):
    return {"p": torch.special.ndtr(unit[..., 0])}


@pytest.mark.parametrize(
    ("unit", "divergences", "status"),
    [
        (CASES["independent"], 0, Status.SAMPLED),
        (CASES["independent"], 21, Status.NOT_MIXED),
        (CASES["apart"], 0, Status.NOT_MIXED),
        (autoregressive(0.99, draws=100), 0, Status.NOT_MIXED),
        (torch.zeros(4, 100, 1).double(), 0, Status.NOT_MIXED),
        (torch.full((4, 100, 1), torch.nan).double(), 0, Status.NOT_MIXED),
    ],
)
def test_status(unit, divergences, status):
    assert measure_mixing(COIN, coins(unit), divergences).status is status


def test_divergences_are_named():
    assert "ESS" in str(measure_mixing(COIN, coins(CASES["independent"]), 0))
    assert str(measure_mixing(COIN, coins(CASES["independent"]), 2)).endswith(", 2 divergences")
    assert str(measure_mixing(COIN, coins(torch.zeros(4, 100, 1).double()))) == "no chain moved"
