"""Normal linear regressions: y ~ Normal(X β, σ), with the priors of each posterior."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def flat_priors(design: Tensor, response: Tensor) -> None:
    """β and σ flat on their supports."""
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), design.shape[1:]))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    observe(design, response, beta, sigma)


def half_cauchy_scale(design: Tensor, response: Tensor) -> None:
    """β flat, σ ~ HalfCauchy(2.5)."""
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), design.shape[1:]))
    sigma = pyro.sample("sigma", dist.HalfCauchy(design.new_tensor(2.5)))
    observe(design, response, beta, sigma)


def proper_priors(design: Tensor, response: Tensor) -> None:
    """β ~ Normal(0, 10), σ ~ HalfNormal(10)."""
    ten = design.new_tensor(10.0)
    beta = pyro.sample("beta", dist.Normal(0.0, ten).expand(design.shape[1:]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(ten))
    observe(design, response, beta, sigma)


def observe(design: Tensor, response: Tensor, beta: Tensor, sigma: Tensor) -> None:
    with pyro.plate("n", len(response)):
        pyro.sample("y", dist.Normal(design @ beta, sigma), obs=response)


def earnings(data: dict[str, Any]) -> tuple[Tensor, Tensor]:
    height, male = data["height"], data["male"]
    height = (height - height.mean()) / height.std()
    return columns(height, male, height * male), data["earn"].log()


def kids_interaction(data: dict[str, Any]) -> tuple[Tensor, Tensor]:
    school, iq = data["mom_hs"], data["mom_iq"]
    return columns(school, iq, school * iq), data["kid_score"]


def kids(data: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return columns(data["mom_hs"], data["mom_iq"]), data["kid_score"]


def mesquite(data: dict[str, Any]) -> tuple[Tensor, Tensor]:
    names = ("diam1", "diam2", "canopy_height", "total_height", "density", "group")
    return columns(*(data[name] for name in names)), data["weight"]


def election(data: dict[str, Any]) -> tuple[Tensor, Tensor]:
    ages = [(data["age_discrete"] == group).double() for group in (2, 3, 4)]
    rest = (data["educ1"], data["gender"], data["income"])
    return columns(data["real_ideo"], data["race_adj"], *ages, *rest), data["partyid7"]


def given_design(data: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return data["X"], data["y"]


def columns(*regressors: Tensor) -> Tensor:
    """The design matrix, an intercept first."""
    return torch.stack([torch.ones_like(regressors[0]), *regressors], -1)
