"""The units of a guide's parameters are the standard deviations they promise."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import Beta, Dirichlet

from vitools.distributions import Kumaraswamy
from vitools.guides import AutoMeanField, AutoMultivariate
from vitools.guides.joint.affine import Affine
from vitools.guides.mean_field.families import FAMILIES

double = torch.float64


@pytest.fixture(autouse=True)
def own_store(clean_process):
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def units(family, **parameters):
    return FAMILIES[family]().units(parameters)


def test_of_normals_is_their_scale():
    scale = torch.tensor([1e-3, 1.0, 50.0], dtype=double)
    for family in ("normal", "logistic_normal"):
        assert torch.allclose(units(family, loc=scale, log_scale=scale.log())["loc"], scale)


@pytest.mark.parametrize("total", [20.0, 1e3, 1e6])
def test_of_a_dirichlet_is_the_sd_of_the_log_of_its_gammas(total):
    mean = torch.tensor([0.2, 0.5, 0.3], dtype=double)
    found = units(
        "dirichlet", logits=mean.log(), log_total=torch.tensor([total], dtype=double).log()
    )
    # of a log-ratio, by simulation: the variances of two independent logs add
    draws = Dirichlet(total * mean).sample((20_000,)).log()
    ratio_sd = (draws[:, 0] - draws[:, 1]).std()
    expected = found["logits"][:2].square().sum().sqrt()
    assert abs(ratio_sd / expected - 1) < 5 / (2 * 20_000) ** 0.5


@pytest.mark.parametrize("total", [20.0, 1e6])
def test_of_a_beta_is_the_sd_of_its_logit(total):
    logit = torch.tensor(-1.0, dtype=double)
    found = units("beta", mean_logit=logit, log_total=torch.tensor(total, dtype=double).log())
    draws = Beta(total * logit.sigmoid(), total * (-logit).sigmoid()).sample((20_000,)).logit()
    assert abs(draws.std() / found["mean_logit"] - 1) < 5 / (2 * 20_000) ** 0.5


@pytest.mark.parametrize(("a", "median_logit"), [(3.0, -1.0), (40.0, 2.0), (500.0, -2.0)])
def test_of_a_kumaraswamy_is_the_slope_of_its_logit_at_the_median(a, median_logit):
    """By differences of its quantile function in a normal quantile, exact as they shrink."""
    parameters = {
        "median_logit": torch.tensor(median_logit, dtype=double),
        "log_a": torch.tensor(a, dtype=double).log(),
    }
    q = FAMILIES["kumaraswamy"]().distribution(_site(), parameters)
    base = q.base_dist if hasattr(q, "base_dist") else q
    assert isinstance(base, Kumaraswamy)
    z = torch.tensor([-1e-4, 1e-4], dtype=double)
    logits = base.icdf(torch.special.ndtr(z)).logit()
    slope = (logits[1] - logits[0]) / 2e-4
    assert abs(units("kumaraswamy", **parameters)["median_logit"] / slope - 1) < 1e-6


class _site:
    event_dim = 0


def model():
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=double), 1.0).to_event(1))
    pyro.sample("p", dist.Dirichlet(torch.ones(3, dtype=double)))
    pyro.sample("x", dist.Normal(w.sum(), 1.0), obs=w.new_ones(()))


def named_parameters(guide):
    return {k.removesuffix("_unconstrained"): p for k, p in guide.named_parameters()}


def test_guides_name_them_as_their_parameters():
    guide = AutoMeanField(model)
    with poutine.block():
        guide()
    parameters = named_parameters(guide)
    for name, unit in guide.units().items():
        assert parameters[name].shape == unit.shape
    assert set(guide.units()) == {"sites.w_loc", "sites.p_loc"}


@pytest.mark.parametrize(("rank", "named"), [(None, set()), (1, {"loc"})])
def test_joint_guides(rank, named):
    guide = AutoMultivariate(model, rank)
    with poutine.block():
        guide()
    assert set(guide.units()) == named
    assert named <= set(named_parameters(guide))


def test_the_affine_map_is_its_start_and_learns_relative_to_it():
    affine = Affine(torch.zeros(2, dtype=double), torch.ones(2, dtype=double))
    location = torch.tensor([5.0, -3.0], dtype=double)
    tril = torch.tensor([[2.0, 0.0], [1.0, 1e-3]], dtype=double)
    affine.start_at(location, tril)
    assert torch.equal(affine.location(), location)
    assert torch.equal(affine.tril(), tril)
    (affine.location().sum() + affine.tril().sum()).backward()
    assert affine.start_location_unconstrained.grad is None
    assert affine.start_tril_unconstrained.grad is None
    with torch.no_grad():
        affine.shift_unconstrained.copy_(torch.tensor([1.0, 0.0], dtype=double))
    assert torch.equal(affine.location(), location + tril[:, 0])
