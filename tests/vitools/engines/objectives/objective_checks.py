"""What the tests of objectives share: how estimates are taken, and two models to take them of."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from vitools.distributions.gaussian import Normal
from vitools.isolation import isolated, seeded


def estimates(spec, problem, guide, count, seed=0):
    """Losses ``[count]`` and gradients ``{parameter: [count, …]}`` of an objective.

    The estimator is recorded as a graph, and the graph run on all draws at once.
    """
    step, names = recorded_step(spec, problem, guide, seed)
    with seeded(seed), torch.no_grad():
        losses, *gradients = torch.vmap(lambda _: step(), randomness="different")(
            torch.zeros(count)
        )
    return losses, dict(zip(names, gradients, strict=True))


def recorded_step(spec, problem, guide, seed=0):
    """Loss and gradients as a graph, and the parameters' names."""
    step, names, objective = python_step(spec, problem, guide, seed)
    assert objective.is_recordable
    with seeded(seed):
        return make_fx(step)(), names


def python_step(spec, problem, guide, seed=0):
    with seeded(seed), isolated() as state:
        objective = spec(problem, guide)
        objective.loss()
    parameters = dict(state["params"])

    def step():
        with isolated(state), torch.enable_grad():
            loss = objective.loss()
            gradients = torch.autograd.grad(loss, list(parameters.values()))
        return loss.detach(), *(gradient.detach() for gradient in gradients)

    return step, list(parameters), objective


def exact_gradient(bound, **at):
    """-bound(**parameters) and its gradient."""
    leaves = {name: torch.as_tensor(value).clone().requires_grad_() for name, value in at.items()}
    loss = -bound(**leaves)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return loss.detach(), dict(zip(leaves, gradients, strict=True))


def assert_unbiased(found, expected):
    """Every mean within 4 of its standard errors, none of which is zero or large."""
    losses, gradients = found
    loss, exact = expected
    pairs = {"loss": (losses, loss), **{k: (gradients[k], exact[k]) for k in exact}}
    assert set(gradients) == set(exact)
    for name, (draws, truth) in pairs.items():
        error = draws.std(0) / math.sqrt(len(draws))
        assert bool((error > 0).all()), name
        assert bool((error < 0.2 * (1 + truth.abs())).all()), name
        assert bool(((draws.mean(0) - truth).abs() < 4 * error).all()), name


def hermite(count):
    """Nodes and weights of the expectation under N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.tensor(nodes), torch.tensor(weights / weights.sum())


def log_normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - torch.log(torch.as_tensor(scale)) - 0.9189385332046727


DATA = torch.tensor([0.3, 1.9, -0.4], dtype=torch.float64)
START = {"shift": 0.4, "loc": 0.7, "log_scale": -0.6}


def shifted_model():
    shift = pyro.param("shift", torch.tensor(START["shift"]))
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.StudentT(4.0, x + shift, 0.8), obs=DATA)


def normal_guide():
    loc = pyro.param("loc", torch.tensor(START["loc"]))
    log_scale = pyro.param("log_scale", torch.tensor(START["log_scale"]))
    pyro.sample("x", Normal(loc, log_scale.exp()))


def shifted_log_weight(noise, shift, loc, log_scale):
    x = loc + log_scale.exp() * noise
    likelihood = torch.distributions.StudentT(4.0, x[..., None] + shift, 0.8).log_prob(DATA)
    return likelihood.sum(-1) + log_normal(x, 0.0, 1.0) - log_normal(x, loc, log_scale.exp())


def shifted_bound(num_particles, alpha=0.0):
    """E log mean w^(1-alpha) / (1-alpha), by Gauss-Hermite quadrature in as many dims as there are draws."""

    def bound(**parameters):
        nodes, weights = hermite(60 if num_particles < 3 else 30)
        log_w = shifted_log_weight(nodes, **parameters)
        grid = torch.stack(torch.meshgrid(*[log_w] * num_particles, indexing="ij"))
        mass = torch.stack(torch.meshgrid(*[weights] * num_particles, indexing="ij")).prod(0)
        log_mean = (grid * (1 - alpha)).logsumexp(0) - math.log(num_particles)
        return (mass * log_mean).sum() / (1 - alpha)

    return bound


COUNTS = torch.tensor([0.2, 1.7, -0.5], dtype=torch.float64)
DISCRETE = {
    "a": torch.tensor(0.3, dtype=torch.float64),
    "b": torch.tensor([-0.5, 0.8, 0.1], dtype=torch.float64),
    "c": torch.tensor(0.6, dtype=torch.float64),
    "loc": torch.tensor(0.2, dtype=torch.float64),
    "log_scale": torch.tensor(-0.7, dtype=torch.float64),
}


def discrete_model(size=None):
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    g = pyro.sample("g", dist.Bernoulli(0.3))
    pyro.sample("seen", dist.Normal(x + g, 2.0), obs=torch.tensor(0.9))
    with pyro.plate("rows", 3, subsample_size=size) as index:
        z = pyro.sample("z", dist.Bernoulli(0.2 + 0.5 * g))
        w = pyro.sample("w", dist.Bernoulli(0.4))
        pyro.sample("y", dist.Normal(x + z + 0.5 * w, 1.0), obs=COUNTS[index])


def discrete_guide(size=None):
    """z is drawn given g; w is left to be summed out."""
    p = {name: pyro.param(name, value) for name, value in DISCRETE.items()}
    g = pyro.sample("g", dist.Bernoulli(logits=p["a"]))
    pyro.sample("x", Normal(p["loc"] + 0.3 * g, p["log_scale"].exp()))
    with pyro.plate("rows", 3, subsample_size=size) as index:
        pyro.sample("z", dist.Bernoulli(logits=p["b"][index] + p["c"] * g))
