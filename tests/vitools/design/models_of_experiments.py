"""Experiments with known answers, for the tests of designs."""

import pyro
import pyro.distributions as dist
import torch


def T(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def line(x, y=None):
    """Offset and slope, unequally known, measured at x with σ = 0.5."""
    w = pyro.sample("w", dist.Normal(T([0.0, 0.0]), T([1.0, 2.0])).to_event(1))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(w[0] + w[1] * x, T(0.5)), obs=y)


def line_gain(x):
    """½ log det(1 + X C Xᵀ / σ²) of a batch of measurements."""
    design = torch.stack([torch.ones_like(x), x], 1)
    covariance = torch.diag(T([1.0, 4.0]))
    inner = torch.eye(len(x)) + design @ covariance @ design.mT / 0.25
    return 0.5 * float(torch.logdet(inner))


def slope_alone_gain(x):
    """I(w_1; y): the offset is a nuisance of variance 1."""
    return 0.5 * float(torch.log1p(4 * x**2 / 1.25))


def two_sites(x, y=None):
    offset = pyro.sample("offset", dist.Normal(T(0.0), 1.0))
    slope = pyro.sample("slope", dist.Normal(T(0.0), 2.0))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(offset + slope * x, T(0.5)), obs=y)


def oscillator(t, y=None):
    """A damped oscillator, q(0) = 1 at rest: q(t) = e^{-γt/2} (cos Ωt + γ/(2Ω) sin Ωt), Ω² = ω² - γ²/4."""
    omega = pyro.sample("omega", dist.Uniform(T(1.0), T(5.0)))
    gamma = pyro.sample("gamma", dist.Uniform(T(0.05), T(0.5)))
    ringing = (omega**2 - gamma**2 / 4).sqrt()
    phase = ringing * t
    q = (-gamma * t / 2).exp() * (phase.cos() + gamma / (2 * ringing) * phase.sin())
    with pyro.plate("measurements", len(t)):
        pyro.sample("y", dist.Normal(q, T(0.1)), obs=y)


def coin(count, heads=None):
    """A share, learnt from ``count`` flips."""
    p = pyro.sample("p", dist.Beta(T(1.0), T(1.0)))
    with pyro.plate("measurements", len(count)):
        pyro.sample("heads", dist.Binomial(count, p), obs=heads)


def threshold(x, label=None):
    """A classifier: labels are 1 above an unknown threshold, uniform on (0, 1), without noise."""
    at = pyro.sample("at", dist.Uniform(T(0.0), T(1.0)))
    with pyro.plate("measurements", len(x)):
        pyro.sample("label", dist.Bernoulli((x > at).double() * 0.998 + 0.001), obs=label)
