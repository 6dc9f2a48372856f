"""Modes that a fit knows without a draw at them, and modes that it does not know."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from vitools import Problem
from vitools.diagnostics import Grade, judge
from vitools.diagnostics.modes.known import is_known
from vitools.diagnostics.modes.missed import scan_for
from vitools.posterior import DrawsPosterior, Status

FLAT = dist.ImproperUniform(constraints.real_vector, torch.Size(), torch.Size((2,)))
DATA = torch.tensor([-2.4, -2.1, -1.9, 1.8, 2.0, 2.2, 2.5]).double()


def independent(problem, **draws):
    """Draws ``[n, *shape]`` as two chains."""
    chains = {k: v.reshape(2, len(v) // 2, *v.shape[1:]) for k, v in draws.items()}
    return DrawsPosterior(problem, chains, engine="nuts", status=Status.SAMPLED)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()


def of_two(x):
    """Two clusters of known width."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2).double(), 5.0).to_event(1))
    component = torch.distributions.Normal(mean, torch.tensor(0.5).double())
    with pyro.plate("rows", len(x)):
        even = torch.distributions.Categorical(torch.ones(2).double())
        pyro.sample("x", dist.MixtureSameFamily(even, component), obs=x)


def either_label(x):
    return of_two(x)


either_label.invariants = lambda values: {"sorted": values["mean"].sort(-1).values}


def one_label(model):
    """Draws of the mode (-2.1, 2.1), nearly."""
    sd = 0.5 / torch.tensor([3.0, 4.0]).double().sqrt()
    centre = torch.tensor([-2.13, 2.13]).double()
    return independent(Problem(model, DATA), mean=centre + sd * noise(400, 2))


def test_labels_that_the_model_identifies_are_two_modes():
    verdict = judge(one_label(of_two)).verdict
    assert verdict.grade is Grade.REJECT
    assert "about 0.5 of the mass is missed" in verdict.reason


def test_labels_that_it_does_not_identify_are_one_mode():
    found = judge(one_label(either_label))
    assert found.verdict.grade is Grade.TRUST
    assert len(found.scan.modes) == 1
    assert found.scan.modes[0].share == pytest.approx(1.0)


def test_draws_of_a_label_that_no_start_has_found_know_the_other():
    fit = one_label(either_label)
    scan = scan_for(fit, fit.pooled())
    (other,) = scan.modes
    if float(other.values["mean"][0]) < 0:  # keep the copy without draws
        draws = {"mean": fit.draws["mean"].flip(-1)}
        fit = DrawsPosterior(fit.problem, draws, engine="nuts", status=Status.SAMPLED)
    assert is_known(fit, fit.pooled())(other)


def funnel():
    v = pyro.sample("v", dist.Normal(torch.tensor(0.0).double(), 1.0))
    with pyro.plate("groups", 8):
        pyro.sample("x", dist.Normal(torch.zeros(()).double(), (v / 2).exp()))


def test_the_peak_of_a_funnel_holds_none_of_its_mass_and_is_not_missed():
    """Of 9 numbers the density is highest at v = -4, four sds from the mean of v."""
    v = noise(2000)
    x = noise(2000, 8) * (v / 2).exp().unsqueeze(-1)
    found = judge(independent(Problem(with_data, torch.tensor(0.0).double()), v=v, x=x))
    assert [round(float(mode.values["v"]), 2) for mode in found.scan.modes] == [-4.0]
    assert found.scan.missed == ()
    assert found.verdict.grade is Grade.TRUST


def with_data(y):
    funnel()
    pyro.sample("y", dist.Normal(torch.zeros_like(y), 1.0), obs=y)


@pytest.mark.parametrize("distance", [5.0, 12.0])
def test_a_mode_behind_a_barrier_is_missed(distance):
    def two():
        u = pyro.sample("u", FLAT)
        heights = [-(u - centre).square().sum() / 2 for centre in (0.0, distance)]
        pyro.factor("target", torch.logsumexp(torch.stack(heights), 0))

    problem = Problem(two)
    missed = scan_for(independent(problem, u=noise(400, 2)), {"u": noise(400, 2)}).missed
    assert [round(mode.share, 1) for mode in missed] == [0.5]
    both = torch.cat([noise(200, 2), noise(200, 2) + distance])
    assert scan_for(independent(problem, u=both), {"u": both}).missed == ()


def test_a_singular_matrix_on_the_way_ends_the_scan_and_not_the_verdict(monkeypatch):
    def meets_one(problem, **_):
        with problem._explained():
            torch.linalg.cholesky(torch.ones(2, 2))

    monkeypatch.setattr("vitools.diagnostics.modes.missed.find_modes", meets_one)
    problem = Problem(of_two, DATA)
    values = {name: noise(40, *site.shape) for name, site in problem.drawn.items()}
    scan = scan_for(independent(problem, **values), values)
    assert scan.modes == ()
    assert scan.words == "other modes could not be looked for (a matrix is singular on the way)"
