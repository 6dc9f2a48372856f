"""Energies of draws: mixed on a Gaussian, not on a walk along a funnel."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem
from vitools.diagnostics import Grade, judge
from vitools.diagnostics.reference.energy import measure_energy
from vitools.posterior import DrawsPosterior, Status

SIZE = 9


def gaussian(y):
    with pyro.plate("entries", SIZE):
        pyro.sample("x", dist.Normal(torch.zeros_like(y), 2.0))
    pyro.sample("y", dist.Normal(torch.zeros_like(y), 1.0), obs=y)


def funnel(y):
    v = pyro.sample("v", dist.Normal(torch.zeros_like(y), 3.0))
    with pyro.plate("groups", SIZE):
        pyro.sample("x", dist.Normal(torch.zeros_like(y), (v / 2).exp()))
    pyro.sample("y", dist.Normal(torch.zeros_like(y), 1.0), obs=y)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def chains(model, divergences=0, **draws):
    problem = Problem(model, torch.tensor(0.0).double())
    return DrawsPosterior(
        problem,
        draws,
        divergences=divergences,
        engine="nuts",
        status=Status.SAMPLED,
        detail=f"R-hat 1.00, {divergences} divergences",
    )


def along_the_funnel(v, divergences=0):
    return chains(
        funnel, divergences, v=v, x=noise(*v.shape, SIZE, seed=1) * (v / 2).exp().unsqueeze(-1)
    )


def walk(count, memory):
    """Stationary chains ``[4, count]`` of sd 3 whose draws are correlated."""
    steps, states = noise(count, 4, seed=2), [3 * noise(4, seed=3)]
    for step in steps[1:]:
        states.append(memory * states[-1] + 3 * (1 - memory**2) ** 0.5 * step)
    return torch.stack(states, 1)


def test_a_gaussian_has_all_its_information():
    found = measure_energy(chains(gaussian, x=2 * noise(4, 1000, SIZE)))
    assert found.fraction == pytest.approx(1.0, abs=0.06)  # Var U = P/2, give or take 4 %
    assert not found.is_slow


def test_a_slow_walk_along_a_funnel_is_named_though_no_transition_diverged():
    """U = v²/18 + 9/2 v + χ²₉/2, so that Var U = 1/2 + 9 · 81/4 + 9/2."""
    fit = along_the_funnel(walk(1000, 0.99))
    found = measure_energy(fit)
    assert found.fraction == pytest.approx(10 / (187.25 + 5), rel=0.5)  # few effective draws
    assert found.is_slow
    verdict = judge(fit).verdict
    assert verdict.grade is Grade.CARE
    assert "its energies have not mixed (E-BFMI 0.0" in verdict.reason
    assert "LocScaleReparam" in verdict.advice


def test_independent_draws_of_a_funnel_have_no_energies_to_walk_over():
    found = measure_energy(along_the_funnel(3 * noise(4, 1000, seed=4)))
    assert found.fraction == pytest.approx(10 / (187.25 + 5), rel=0.15)
    assert not found.is_slow


def test_what_has_no_density_or_too_few_draws_tells_nothing(monkeypatch):
    assert measure_energy(chains(gaussian, x=torch.full((2, 50, SIZE), torch.nan).double())) is None
    monkeypatch.setattr("vitools.diagnostics.reference.energy.MOST_BYTES", 1.0)
    assert measure_energy(chains(gaussian, x=noise(2, 50, SIZE))) is None


@pytest.mark.parametrize(("divergences", "grade"), [(4, Grade.TRUST), (5, Grade.CARE)])
def test_a_stray_divergence_is_named_and_no_more(divergences, grade):
    verdict = judge(chains(gaussian, divergences, x=2 * noise(4, 1000, SIZE))).verdict
    assert verdict.grade is grade
    assert f"{divergences} " in verdict.reason


def test_one_divergence_in_a_funnel_counts():
    """Independent draws of it: nothing else is wrong with them."""
    verdict = judge(along_the_funnel(3 * noise(4, 1000, seed=4), divergences=1)).verdict
    assert verdict.grade is Grade.CARE
    assert verdict.reason.startswith("1 transition diverged")
