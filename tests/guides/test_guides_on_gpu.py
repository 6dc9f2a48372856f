"""Guides take their tensors where the model's data are, a GPU included."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from vitools import Problem
from vitools.guides import (
    AutoDirichlet,
    AutoFlow,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMultivariate,
)


def model(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(x.new_ones(3)))
    share = pyro.sample("share", dist.Beta(x.new_tensor(2.0), x.new_tensor(3.0)))
    scale = pyro.sample("scale", dist.HalfCauchy(x.new_ones(())))
    with pyro.plate("rows", len(x), device=x.device):
        pyro.sample("x", dist.Normal(weights[..., 0] + share, scale), obs=x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(
    "guide_class", [AutoDirichlet, AutoKumaraswamy, AutoLogisticNormal, AutoMultivariate, AutoFlow]
)
def test_parameters_and_draws_are_on_the_gpu(guide_class: type) -> None:
    x = torch.linspace(0, 1, 20, device="cuda")
    with pyro.get_param_store().scope():
        guide = guide_class(model)
        guide.initialise_near_mode(Problem(model, x))
        svi = SVI(model, guide, pyro.optim.Adam({"lr": guide.learning_rate}), Trace_ELBO())
        losses = torch.tensor([svi.step(x) for _ in range(3)])
        draws = guide(x)
    assert losses.isfinite().all()
    assert {tensor.device.type for tensor in (*guide.parameters(), *draws.values())} == {"cuda"}
