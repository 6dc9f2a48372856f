"""Each unbiased gradient estimator against the exact gradient, by quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_checks import (
    DATA,
    START,
    assert_unbiased,
    estimates,
    exact_gradient,
    hermite,
    log_normal,
    normal_guide,
    shifted_bound,
    shifted_model,
)

from vitools import Problem, svi
from vitools.distributions.gaussian import Normal
from vitools.engines.objectives import Elbo, ImportanceWeighted
from vitools.errors import NotSupportedError
from vitools.isolation import isolated, seeded

ELBO_SPECS = [
    Elbo(),
    Elbo(gradient="sticking_the_landing"),
    pytest.param(Elbo(4), marks=pytest.mark.slow),
    pytest.param(Elbo(3, gradient="sticking_the_landing"), marks=pytest.mark.slow),
    Elbo(analytic_kl=True),
]


@pytest.mark.parametrize("spec", ELBO_SPECS)
def test_elbo_gradients_on_one_latent(spec):
    found = estimates(spec, Problem(shifted_model), normal_guide, 4000)
    assert_unbiased(found, exact_gradient(shifted_bound(1), **START))


@pytest.mark.parametrize("gradient", ["pathwise", "doubly_reparameterised"])
@pytest.mark.parametrize("num_particles", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_importance_weighted_gradients_on_one_latent(gradient, num_particles):
    spec = ImportanceWeighted(num_particles, gradient)
    found = estimates(spec, Problem(shifted_model), normal_guide, 4000)
    assert_unbiased(found, exact_gradient(shifted_bound(num_particles), **START))


@pytest.mark.parametrize("gradient", ["pathwise", "doubly_reparameterised"])
def test_gradients_of_the_bound_between_elbo_and_importance_weights(gradient):
    found = estimates(
        ImportanceWeighted(2, gradient, 0.4), Problem(shifted_model), normal_guide, 4000
    )
    assert_unbiased(found, exact_gradient(shifted_bound(2, 0.4), **START))


def test_renyi_s_bound_of_two_gaussians():
    """p(x, z) = N(z; 0, 1) N(x; z, 1) and q = N(0, 1): 1/(1-α) log E_q w^(1-α) in closed form.

    w is the likelihood, and N(x; z, 1)^(1-α) is N(x; z, 1/(1-α)) up to a factor, so that E_q w^(1-α)
    is that factor times N(x; 0, 1 + 1/(1-α)).
    """
    x, alpha = torch.tensor(1.5), 0.5

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("z", Normal(loc, torch.tensor(1.0)))

    variance = torch.tensor(1 / (1 - alpha))
    factor = 0.5 * (2 * math.pi * variance).log() - 0.5 * (1 - alpha) * math.log(2 * math.pi)
    expected = (factor + log_normal(x, 0.0, (1 + variance).sqrt())) / (1 - alpha)
    count = 4000
    losses, _ = estimates(ImportanceWeighted(count, alpha=alpha), Problem(model), guide, 20)
    # w^(1-α) ≤ 1 and of mean .3, so that its relative sd is below 2 and the bias, var/(2K), 1e-3
    error = float(losses.std()) / math.sqrt(20)
    assert abs(float(losses.mean() + expected)) < 4 * error + 1e-3
    evidence = log_normal(x, 0.0, math.sqrt(2))
    elbo = -0.5 * math.log(2 * math.pi) - 0.5 * (float(x) ** 2 + 1)
    assert elbo < expected < evidence


# ---- two latents, one drawn given the other -----------------------------------------------------

PAIR = {"mean": -0.1, "log_sd": -0.9, "loc": 0.4, "slope": 0.7, "log_scale": -0.5}


def scaled_model():
    """A scale and a location whose prior it is: neither normal nor independent a posteriori."""
    scale = pyro.sample("scale", dist.LogNormal(-0.2, 0.5))
    x = pyro.sample("x", dist.Normal(0.0, scale))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.StudentT(4.0, x, scale), obs=DATA)


def scaled_guide():
    p = {name: pyro.param(name, torch.tensor(value)) for name, value in PAIR.items()}
    log_scale = Normal(p["mean"], p["log_sd"].exp())
    exponential = [dist.transforms.ExpTransform()]
    scale = pyro.sample("scale", dist.TransformedDistribution(log_scale, exponential))
    pyro.sample("x", Normal(p["loc"] + p["slope"] * scale.log(), p["log_scale"].exp()))


def scaled_bound(mean, log_sd, loc, slope, log_scale):
    """By Gauss-Hermite quadrature in both dims."""
    nodes, weights = hermite(50)
    log_s = (mean + log_sd.exp() * nodes)[:, None]
    centre = loc + slope * log_s
    x, s = centre + log_scale.exp() * nodes, log_s.exp()
    log_q = log_normal(log_s, mean, log_sd.exp()) + log_normal(x, centre, log_scale.exp())
    log_p = log_normal(log_s, torch.tensor(-0.2), 0.5) + log_normal(x, 0.0, s)
    rows = torch.distributions.StudentT(4.0, x[..., None], s[..., None]).log_prob(DATA).sum(-1)
    return (torch.outer(weights, weights) * (log_p + rows - log_q)).sum()


@pytest.mark.parametrize("spec", ELBO_SPECS)
def test_elbo_gradients_on_two_dependent_latents(spec):
    found = estimates(spec, Problem(scaled_model), scaled_guide, 4000)
    assert_unbiased(found, exact_gradient(scaled_bound, **PAIR))


def test_sticking_the_landing_has_no_noise_at_the_posterior():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(x, 1.0), obs=DATA)

    def guide():
        loc = pyro.param("loc", DATA.sum() / 4)
        scale = pyro.param("log_scale", torch.tensor(math.log(0.5))).exp()
        pyro.sample("x", Normal(loc, scale))

    for spec in (Elbo(gradient="sticking_the_landing"), ImportanceWeighted(5)):
        _, gradients = estimates(spec, Problem(model), guide, 20)
        assert all(bool((g.abs() < 1e-12).all()) for g in gradients.values())
    _, gradients = estimates(Elbo(), Problem(model), guide, 20)
    assert all(float(g.detach().std()) > 0.1 for g in gradients.values())


# ---- local latents in a plate: weights of their own, minibatches --------------------------------

ROWS = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)
LOCAL = {"slope": 1.3, "gain": 0.4, "log_scale": -0.3}


def local_model(size=None):
    slope = pyro.param("slope", torch.tensor(LOCAL["slope"]))
    with pyro.plate("rows", 4, subsample_size=size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        loc = slope * z[..., 0].sin() + z[..., 1]
        pyro.sample("y", dist.Normal(loc, 0.5), obs=ROWS[index])


def local_guide(size=None):
    gain = pyro.param("gain", torch.tensor(LOCAL["gain"]))
    scale = pyro.param("log_scale", torch.tensor(LOCAL["log_scale"])).exp()
    with pyro.plate("rows", 4, subsample_size=size) as index:
        loc = torch.stack([gain * ROWS[index], 0.5 * gain * ROWS[index]], -1)
        pyro.sample("z", Normal(loc, scale).to_event(1))


def local_bound(slope, gain, log_scale):
    """Σ_n E log ½ (w_n1 + w_n2), by quadrature in the four dims of two draws."""
    nodes, weights = hermite(18)
    first, second = (n.flatten() for n in torch.meshgrid(nodes, nodes, indexing="ij"))
    mass = torch.outer(weights, weights).flatten()
    scale, total = log_scale.exp(), 0.0
    for y in ROWS:
        a, b = gain * y + scale * first, 0.5 * gain * y + scale * second
        log_q = log_normal(a, gain * y, scale) + log_normal(b, 0.5 * gain * y, scale)
        log_p = log_normal(a, 0.0, 1.0) + log_normal(b, 0.0, 1.0)
        log_w = log_p + log_normal(y, slope * a.sin() + b, 0.5) - log_q
        pair = torch.logaddexp(log_w[:, None], log_w) - math.log(2)
        total = total + (torch.outer(mass, mass) * pair).sum()
    return total


@pytest.mark.parametrize("size", [pytest.param(None, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("gradient", ["pathwise", "doubly_reparameterised"])
def test_elements_of_common_plates_have_their_own_weights(gradient, size):
    spec = ImportanceWeighted(2, gradient)
    found = estimates(spec, Problem(local_model, size), local_guide, 3000)
    assert_unbiased(found, exact_gradient(local_bound, **LOCAL))


@pytest.mark.parametrize("gradient", ["pathwise", "doubly_reparameterised"])
def test_choosing_a_minibatch_draws_no_noise_that_a_recording_would_leave_out(gradient):
    """Warnings are errors here: one says that the recording gives other numbers than the model."""
    spec = ImportanceWeighted(2, gradient)
    fit = svi(Problem(local_model, 2), local_guide, objective=spec, max_steps=3, compile=False)
    assert len(fit.history) == 3


def test_no_closed_kl_is_said():
    with isolated(), pytest.raises(NotSupportedError, match="no latent of model"), seeded(0):
        Elbo(analytic_kl=True)(Problem(local_model), pyro.infer.autoguide.AutoNormal(local_model))
