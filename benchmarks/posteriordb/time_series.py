"""Autoregressions, both conditional on the first values, and a two-state hidden Markov model."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor


def autoregression(y: Tensor, order: int) -> None:
    """y_t ~ Normal(α + Σ_k β_k y_{t-k}, σ), given the first ``order`` values."""
    ten = y.new_tensor(10.0)
    alpha = pyro.sample("alpha", dist.Normal(0.0, ten))
    beta = pyro.sample("beta", dist.Normal(0.0, ten).expand([order]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_tensor(2.5)))
    lagged = torch.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], -1)
    with pyro.plate("t", len(y) - order):
        pyro.sample("y", dist.Normal(alpha + lagged @ beta, sigma), obs=y[order:])


def arma(y: Tensor) -> None:
    """err_t = y_t - μ - φ y_{t-1} - θ err_{t-1} ~ Normal(0, σ), with y_0 = μ and err_0 = 0.

    The errors solve a bidiagonal system, L err = y - μ - φ y_{t-1}, L_tt = 1, L_t,t-1 = θ.
    """
    mu = pyro.sample("mu", dist.Normal(y.new_tensor(0.0), 10.0))
    phi = pyro.sample("phi", dist.Normal(y.new_tensor(0.0), 2.0))
    theta = pyro.sample("theta", dist.Normal(y.new_tensor(0.0), 2.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_tensor(2.5)))
    previous = torch.cat([mu.reshape(1), y[:-1]])
    lower = torch.diag(torch.ones_like(y)) + theta * torch.diag(torch.ones_like(y[1:]), -1)
    residual = (y - mu - phi * previous).unsqueeze(-1)
    error = torch.linalg.solve_triangular(lower, residual, upper=False).squeeze(-1)
    with pyro.plate("t", len(y)):
        pyro.sample("y", dist.Normal(y - error, sigma), obs=y)


def hidden_markov(y: Tensor) -> None:
    """Two states with means 0 < μ_1 < μ_2 and unit sd; the states are summed out."""
    flat = y.new_ones(2)
    theta1 = pyro.sample("theta1", dist.Dirichlet(flat))
    theta2 = pyro.sample("theta2", dist.Dirichlet(flat))
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    pyro.factor("mu_prior", dist.Normal(y.new_tensor([3.0, 10.0]), 1.0).log_prob(mu).sum(-1))
    transition = torch.stack([theta1, theta2], -2).log().expand(len(y) - 1, 2, 2)
    # DiscreteHMM moves once before the first value: from anywhere, both states alike
    first = torch.zeros_like(transition[:1])
    states = dist.DiscreteHMM(flat.log(), torch.cat([first, transition]), dist.Normal(mu, 1.0))
    pyro.sample("y", states, obs=y)


def series(data: dict[str, Any]) -> tuple[Tensor]:
    return (data["y"],)


def series_and_order(data: dict[str, Any]) -> tuple[Tensor, int]:
    return data["y"], data["K"]
