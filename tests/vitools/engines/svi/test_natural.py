"""Natural gradients: the step of a conjugate site is coordinate ascent's, and svi climbs by them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Beta, Dirichlet, Normal, kl_divergence

from vitools import NaturalGradient, Problem, cavi, svi
from vitools.errors import OptionError
from vitools.guides import AutoDirichlet, AutoKumaraswamy, AutoMeanField
from vitools.isolation import isolated, seeded

FLIPS = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
FACES = torch.tensor([0, 2, 2, 1, 2])
HEIGHTS = torch.tensor([1.3, 0.2, 2.9], dtype=torch.float64)


def flips():
    p = pyro.sample("p", dist.Beta(2.0, 1.5))
    with pyro.plate("rows", 4):
        pyro.sample("x", dist.Bernoulli(p), obs=FLIPS)


def flips_bound(q):
    """E log p(x | p) - KL, from E log p = ψ(α) - ψ(α + β)."""
    both = torch.digamma(q.concentration1 + q.concentration0)
    log_p, log_rest = torch.digamma(q.concentration1) - both, torch.digamma(q.concentration0) - both
    return 3 * log_p + log_rest - kl_divergence(q, Beta(torch.tensor(2.0), torch.tensor(1.5)))


def faces():
    p = pyro.sample("p", dist.Dirichlet(torch.tensor([0.5, 1.0, 2.0])))
    with pyro.plate("rows", 5):
        pyro.sample("x", dist.Categorical(p), obs=FACES)


def faces_bound(q):
    total = q.concentration.sum(-1, keepdim=True)
    log_p = torch.digamma(q.concentration) - torch.digamma(total)
    counts = torch.tensor([1.0, 1.0, 3.0])
    return (counts * log_p).sum() - kl_divergence(q, Dirichlet(torch.tensor([0.5, 1.0, 2.0])))


def heights():
    p = pyro.sample("p", dist.Normal(0.5, 2.0))
    with pyro.plate("rows", 3):
        pyro.sample("x", dist.Normal(p, 0.7), obs=HEIGHTS)


def heights_bound(q):
    squares = (HEIGHTS - q.loc) ** 2 + q.scale**2
    return -squares.sum() / (2 * 0.49) - kl_divergence(q, Normal(0.5, 2.0))


CONJUGATE = [
    (flips, flips_bound, {"concentration1": 5.0, "concentration0": 2.5}),
    (faces, faces_bound, {"concentration": [1.5, 2.0, 5.0]}),
    (
        heights,
        heights_bound,
        {
            "loc": (0.5 / 4 + float(HEIGHTS.sum()) / 0.49) / (1 / 4 + 3 / 0.49),
            "scale": (1 / 4 + 3 / 0.49) ** -0.5,
        },
    ),
]


def step(model, bound, rate):
    """q of the site p before and after one step with the bound's exact gradient."""
    with seeded(0), isolated():
        guide = AutoDirichlet(model, jitter=0.5)
        guide()
        before = guide.marginal("p")
        site = guide.get_submodule("sites") if hasattr(guide, "sites") else guide
        parameters = list(site.parameters())
        made = guide._families["p"].distribution(guide._latent_sites["p"], guide._values("p"))
        gradients = torch.autograd.grad(-bound(made), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        guide.natural_step(rate)
        return before, guide.marginal("p")


@pytest.mark.parametrize(("model", "bound", "posterior"), CONJUGATE)
def test_a_whole_step_is_the_update_of_coordinate_ascent(model, bound, posterior):
    before, after = step(model, bound, 1.0)
    updated = cavi(Problem(model)).marginal("p")
    for name, value in posterior.items():
        found, expected = getattr(after, name), torch.tensor(value, dtype=torch.float64)
        assert not torch.allclose(getattr(before, name), expected, rtol=1e-2)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        torch.testing.assert_close(getattr(updated, name).reshape(found.shape), found)


@pytest.mark.parametrize(("model", "bound", "posterior"), CONJUGATE)
def test_a_part_of_a_step_is_a_part_of_the_way_in_natural_parameters(model, bound, posterior):
    def natural(q):
        if isinstance(q, Normal):
            return torch.stack([q.loc / q.scale**2, q.scale**-2])
        return torch.stack([getattr(q, name) for name in posterior]).flatten()

    before, after = step(model, bound, 0.3)
    _, whole = step(model, bound, 1.0)
    torch.testing.assert_close(
        natural(after), 0.7 * natural(before) + 0.3 * natural(whole), rtol=1e-9, atol=1e-12
    )


def test_no_step_leaves_the_family():
    """A gradient that asks for a negative precision or concentration shrinks it to a tenth."""

    def model():
        pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    with seeded(0), isolated():
        guide = AutoDirichlet(model)
        guide()
        precision = guide.marginal("x").base_dist.scale ** -2
        for name, parameter in guide.named_parameters():
            parameter.grad = torch.full_like(parameter, -1e6 if "scale" in name else 1e6)
        guide.natural_step(1.0)
        torch.testing.assert_close(guide.marginal("x").base_dist.scale ** -2, precision / 10)
        assert bool((guide.marginal("p").concentration > 0).all())


def regression(x, y):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(5), 3.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ weights, 1.0), obs=y)


def correlated_data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 0.1, 10.0, 3.0, 0.3])
    return x, x @ torch.arange(1.0, 6.0) + torch.randn(200, generator=generator)


def nats_missing(best, fit):
    """How far the bound stays below the best there is, in means of 20 steps."""
    return best - torch.tensor(fit.history.elbo).unfold(0, 20, 1).mean(-1)


def test_badly_scaled_regression_needs_fewer_steps_than_adam():
    x, y = correlated_data()
    problem = Problem(regression, x, y)
    precision = x.mT @ x + torch.eye(5) / 9
    # of mean-field normals the best has the posterior's mean and its precision's diagonal
    sd = precision.diagonal() ** -0.5
    mean = torch.linalg.solve(precision, x.mT @ y)
    residuals = ((y - x @ mean) ** 2).sum() + (x**2 * sd**2).sum()
    best = -0.5 * float(residuals) - 100 * math.log(2 * math.pi)
    best -= float(kl_divergence(Normal(mean, sd), Normal(torch.zeros(5), 3.0)).sum())
    options = {"num_particles": 4, "max_steps": 600, "compile": False, "start": "guide"}
    natural = svi(problem, AutoMeanField, optimizer=NaturalGradient(), **options)
    adam = svi(problem, AutoMeanField, **options)
    q = natural.marginal("weights").base_dist
    torch.testing.assert_close(q.scale, sd, rtol=0.05, atol=0.0)
    assert bool(((q.loc - mean).abs() < 0.1 * sd).all())
    assert bool((nats_missing(best, natural)[80:] < 1.0).all())
    assert bool((nats_missing(best, adam) > 1.0).all())


def test_guides_without_natural_gradients_are_refused():
    problem = Problem(flips)
    with pytest.raises(OptionError, match=r"site 'p': the family 'kumaraswamy'.*choose one of"):
        svi(problem, AutoKumaraswamy, optimizer=NaturalGradient())
    with pytest.raises(OptionError, match="guide AutoNormal has no natural_step"):
        svi(problem, pyro.infer.autoguide.AutoNormal, optimizer=NaturalGradient())
    with pytest.raises(OptionError, match=r"rate in \(0, 1\], got 2"):
        NaturalGradient(2.0)

    def model():
        shift = pyro.param("shift", torch.zeros(()))
        x = pyro.sample("x", dist.Normal(shift, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.3))

    with pytest.raises(OptionError, match="the model has some of its own"):
        svi(Problem(model), AutoMeanField, optimizer=NaturalGradient())
