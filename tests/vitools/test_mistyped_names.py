"""A wrong name or container from Python meets an explanation and the nearest right name."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, compare, svi
from vitools.errors import ModelError, OptionError, VitoolsWarning
from vitools.guides import AutoMeanField
from vitools.models import coin

PROBLEM = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]).double())


@pytest.fixture(scope="module")
def fit():
    return cavi(PROBLEM)


def test_fits_without_names_are_refused(fit):
    with pytest.raises(OptionError, match=r"expects \{name: fit\}, got a list"):
        compare([fit, fit])
    with pytest.raises(OptionError, match=r"got one fit.*compare\(\{\"CAVI\": fit"):
        compare(fit)


@pytest.mark.parametrize("moments", ["mean", "sd"])
def test_moments_of_an_unknown_site_are_refused(fit, moments):
    found = getattr(fit, moments)()
    with pytest.raises(OptionError, match=r"no latent site 'pp' here \(sites: p\).*mean 'p'"):
        found["pp"]
    assert "pp" not in found
    assert found.get("pp") is None


def test_a_family_for_no_site_is_refused():
    with pytest.raises(OptionError, match=r"expected \{site: family\}.*mean 'dirichlet'"):
        AutoMeanField(coin.model, families="dichlet")
    with pytest.raises(OptionError, match=r"site 'p': no family.*mean 'dirichlet'"):
        svi(PROBLEM, AutoMeanField(coin.model, families={"p": "dichlet"}), max_steps=1)


class Line(torch.nn.Module):
    def forward(self, counts, scale=1.0, batch_size=None):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(1.0), 1.0))
        with pyro.plate("rows", len(counts), batch_size):
            pyro.sample("counts", dist.Poisson(scale * rate), obs=counts)


@pytest.mark.parametrize("model", [Line(), Line().forward], ids=["module", "function"])
def test_arguments_that_a_model_does_not_take_are_named_with_those_it_does(model):
    counts, takes = torch.ones(3), "Its arguments: counts, scale, batch_size."
    for args, kwargs, hint in [
        ((counts,), {"btach_size": 2}, " Did you mean 'batch_size'?"),
        ((), {"count": counts}, " Did you mean 'counts'?"),
        ((counts,), {"xyz": 1}, ""),
        ((), {}, ""),
        ((counts, 1.0, None, 4), {}, ""),
    ]:
        with pytest.raises(ModelError) as error:
            Problem(model, *args, **kwargs)
        assert str(error.value).endswith(takes + hint)


def count(total):
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(1.0), 1.0))
    n = pyro.sample("n", dist.Poisson(rate))
    pyro.sample("total", dist.Normal(n, 1.0), obs=total)


def test_a_count_that_no_automatic_guide_draws_is_left_to_ones_own():
    with pytest.raises(ModelError, match="or write a guide that draws it"):
        svi(Problem(count, torch.tensor(2.0)), AutoMeanField, max_steps=1)


def test_a_model_that_reads_numbers_out_of_tensors_is_told_so():
    def model(counts):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(1.0), 1.0))
        scale = 1.0 + int(rate.detach() > 1.0)
        with pyro.plate("rows", len(counts)):
            pyro.sample("counts", dist.Poisson(scale * rate), obs=counts)

    problem = Problem(model, torch.tensor([1.0, 2.0]))
    with pytest.warns(VitoolsWarning, match=r"reads a number out of a tensor .*\(int\(x\)"):
        svi(problem, AutoMeanField, max_steps=1, start="guide")
