"""Flat priors under curved functions: refused where, and only where, the posterior is improper."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import linprog
from torch.distributions import constraints

from vitools import Problem, cavi
from vitools.errors import NumericalError


def flat(name, *size):
    support = constraints.real_vector if size else constraints.real
    return pyro.sample(name, dist.ImproperUniform(support, (), size))


def data(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    y = x[:, 0] + torch.randn(8, generator=generator, dtype=torch.float64) > 0.3
    return x, y.double()


def is_separated(x, y):
    """Whether a hyperplane through 0 has no outcome on its wrong side (Albert and Anderson 1984)."""
    signed = (x * (2 * y - 1).unsqueeze(-1)).numpy()
    found = linprog(-signed.sum(0), A_ub=-signed, b_ub=[0.0] * len(y), bounds=[(-1, 1)] * 2)
    return -found.fun > 1e-9


LINKS = {
    "logit": lambda e: dist.Bernoulli(logits=e),
    "probit": lambda e: dist.Bernoulli(dist.Normal(0.0, 1.0).cdf(e)),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("seed", range(4))
def test_flat_weights_are_refused_just_where_a_hyperplane_separates_the_outcomes(link, seed):
    def model(x, y):
        w = flat("w", 2)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", LINKS[link](x @ w), obs=y)

    x, y = data(seed)
    if is_separated(x, y):
        with pytest.raises(NumericalError, match=r"flat prior of 'w': nothing holds w\[0\] to"):
            cavi(Problem(model, x, y))
    else:
        assert cavi(Problem(model, x, y), max_sweeps=40).sd()["w"].max() < 30


def test_the_data_sets_are_of_both_kinds():
    assert {is_separated(*data(seed)) for seed in range(4)} == {True, False}


def levels(prior):
    def model(group, y):
        a = flat("a")
        b = prior()
        with pyro.plate("rows", len(y)):
            eta = a + (group.unsqueeze(-1) == torch.arange(1, 4)).double() @ b
            pyro.sample("y", dist.Bernoulli(logits=eta), obs=y)

    group = torch.arange(32) % 4
    y = (torch.arange(32) % 3 == 0).double()
    return model, group, torch.where(group == 2, 1.0, torch.where(group == 3, 0.0, y))


def test_groups_of_one_outcome_under_flat_effects_are_named():
    with pytest.raises(NumericalError, match=r"nothing holds b\[[12]\] to [+-]infinity"):
        cavi(Problem(*levels(lambda: flat("b", 3))))


def test_groups_of_one_outcome_under_proper_effects_are_fitted():
    def prior():
        return pyro.sample("b", dist.Normal(0.0, 5.0).expand([3]).to_event(1))

    fit = cavi(Problem(*levels(prior)), max_sweeps=40)
    assert float(fit.mean()["b"][1]) > 2
    assert float(fit.mean()["b"][2]) < -2
