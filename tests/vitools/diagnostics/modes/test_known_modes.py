"""Modes that a fit knows without a draw at them, and modes that it does not know."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from vitools import Problem
from vitools.diagnostics import Grade, find_modes, judge
from vitools.diagnostics.modes.known import is_known
from vitools.diagnostics.modes.labels import AlikeInvariants
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


def of_two(x, shares=(0.5, 0.5)):
    """Two clusters of known width."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2).double(), 5.0).to_event(1))
    component = torch.distributions.Normal(mean, torch.tensor(0.5).double())
    with pyro.plate("rows", len(x)):
        chosen = torch.distributions.Categorical(torch.tensor(shares).double())
        pyro.sample("x", dist.MixtureSameFamily(chosen, component), obs=x)


def either_label(x):
    return of_two(x)


either_label.invariants = lambda values: {"sorted": values["mean"].sort(-1).values}


def one_label(model):
    """Draws of the mode (-2.1, 2.1), nearly."""
    sd = 0.5 / torch.tensor([3.0, 4.0]).double().sqrt()
    centre = torch.tensor([-2.13, 2.13]).double()
    return independent(Problem(model, DATA), mean=centre + sd * noise(400, 2))


def test_labels_that_the_model_identifies_are_two_modes():
    """Three of the seven rows are low, so that one order of two unequal shares is the likelier."""

    def unequal(x):
        of_two(x, shares=(0.45, 0.55))

    scan = judge(one_label(unequal)).scan
    assert scan.exchanges == ()
    assert [len(scan.modes), len(scan.missed)] == [2, 1]
    # of shares (.45, .55) the odds of the orders are (.55 / .45)^(4 - 3)
    assert scan.missed_share == pytest.approx(0.45, abs=0.01)


def test_labels_that_the_density_does_not_tell_apart_are_one_mode():
    found = judge(one_label(of_two))
    assert found.verdict.grade is Grade.TRUST
    assert found.verdict.reason.endswith("a scan found 2 modes, 1 but for the labels of mean")
    (mode,) = found.scan.modes
    assert mode.share == pytest.approx(1.0)


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
    copies = AlikeInvariants(fit.problem, fit.pooled())
    assert is_known(fit, fit.pooled(), copies)(other)
    assert not is_known(fit, fit.pooled())(other)


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


def test_a_start_at_which_a_matrix_is_singular_spares_the_others():
    """A has no root below t = -8, where wide starts are; -(t - 1) - t (t² - 9) / 2 is 0 at the modes."""

    def model():
        t = pyro.sample("t", dist.Normal(torch.tensor(1.0).double(), 1.0))
        positive = torch.stack([t + 8.0, torch.ones_like(t)]).diag_embed()
        root = torch.linalg.cholesky(positive)
        pyro.factor("target", root.diagonal().prod().log() * 0.0 - (t**2 - 9.0) ** 2 / 8)

    modes = find_modes(Problem(model))
    found = [float(mode.values["t"]) for mode in modes]
    assert [t > 0 for t in found] == [True, False]
    assert [t**3 - 7 * t - 2 for t in found] == pytest.approx([0.0, 0.0], abs=1e-4)
