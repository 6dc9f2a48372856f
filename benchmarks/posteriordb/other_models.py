"""Eight schools, a Gaussian process, a line through the years, and a mixture of two Gaussians."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from reference import Draws
from torch import Tensor


def eight_schools(y: Tensor, sigma: Tensor) -> None:
    """Non-centred: θ = μ + τ θ̃, θ̃ ~ Normal(0, 1)."""
    mu = pyro.sample("mu", dist.Normal(y.new_tensor(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(y.new_tensor(5.0)))
    with pyro.plate("school", len(y)):
        standard = pyro.sample("theta_trans", dist.Normal(y.new_tensor(0.0), 1.0))
        theta = pyro.deterministic("theta", mu + tau * standard)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def standardised(draws: Draws) -> Draws:
    """θ̃ from the reference's θ, μ and τ."""
    standard = (draws["theta"] - draws["mu"][:, None]) / draws["tau"][:, None]
    return {"mu": draws["mu"], "tau": draws["tau"], "theta_trans": standard}


def gaussian_process(x: Tensor, y: Tensor) -> None:
    """y ~ Normal(0, K), K_ij = α² exp(-(x_i - x_j)² / 2ρ²) + σ [i = j]: σ is a variance."""
    rho = pyro.sample("rho", dist.Gamma(y.new_tensor(25.0), 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(y.new_tensor(2.0)))
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_tensor(1.0)))
    distance = (x[:, None] - x) / rho
    kernel = alpha**2 * (-0.5 * distance**2).exp() + sigma * torch.eye(len(x), dtype=x.dtype)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros_like(y), kernel), obs=y)


def line(x: Tensor, y: Tensor, alpha_prior: tuple[float, float], beta_prior: tuple[float, float]):
    """y ~ Normal(α + β x, σ), σ flat; x in calendar years, uncentred."""
    alpha = pyro.sample("alpha", dist.Normal(*map(x.new_tensor, alpha_prior)))
    beta = pyro.sample("beta", dist.Normal(*map(x.new_tensor, beta_prior)))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("n", len(y)):
        pyro.sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


def mixture(y: Tensor) -> None:
    """y_n ~ θ Normal(μ_1, σ_1) + (1 - θ) Normal(μ_2, σ_2), μ_1 < μ_2, assignments summed out."""
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    pyro.factor("mu_prior", dist.Normal(y.new_tensor(0.0), 2.0).log_prob(mu).sum(-1))
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_tensor(2.0)).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(y.new_tensor(5.0), 5.0))
    with pyro.plate("n", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.stack([theta, 1 - theta], -1)))
        pyro.sample("y", dist.Normal(mu[z], sigma[z]), obs=y)


def years(data: dict[str, Any]) -> tuple[Any, ...]:
    alpha = (data["pmualpha"], data["psalpha"])
    return data["x"], data["y"], alpha, (data["pmubeta"], data["psbeta"])
