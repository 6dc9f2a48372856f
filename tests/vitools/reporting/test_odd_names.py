"""Sites may be called anything: what ``scope`` makes, nothing at all, words of any language."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.autoname import scope

from vitools import Problem, cavi, load, nuts, save, svi, to_arviz
from vitools.guides import AutoMultivariate
from vitools.reporting.arviz.groups import save_netcdf

NAMES = ["a/b", "", "x" * 300, "µ θ, with spaces", "..", "a$$$b<b>&"]


def _model(name):
    def model(x):
        level = pyro.sample(name, dist.Normal(0.0, 1.0))
        with pyro.plate("rows/left", len(x)):
            pyro.sample("x/y z", dist.Normal(level, 1.0), obs=x)

    return model


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_sites_of_any_name_are_saved_and_exported(tmp_path, name):
    problem = Problem(_model(name), torch.tensor([0.2, 0.5, 0.1]))
    fits = [cavi(problem)]
    if name in NAMES[:2]:
        fits.append(svi(problem, AutoMultivariate, max_steps=16, compile=False))
        fits.append(nuts(problem, num_samples=8, num_warmup=8, num_chains=1, compile=False))
    plain = name.replace("/", ".") or "unnamed"
    for number, fit in enumerate(fits):
        path = tmp_path / f"{number}.safetensors"
        save(fit, path)
        drawn = load(path, problem).sample(3)
        torch.testing.assert_close(drawn[name], fit.sample(3)[name])
        tree = to_arviz(fit, num_samples=4)
        assert plain in tree["posterior"]
        assert tree["observed_data"]["x.y z"].dims == ("rows.left",)
        save_netcdf(tree, tmp_path / "fit.nc")


def test_names_that_come_to_be_alike_are_told_apart():
    def model(x):
        with scope(prefix="a"):
            one = pyro.sample("b", dist.Normal(0.0, 1.0))
        other = pyro.sample("a.b", dist.Normal(5.0, 0.001))
        pyro.sample("x", dist.Normal(one + other, 1.0), obs=x)

    problem = Problem(model, torch.tensor(0.2))
    tree = to_arviz(nuts(problem, num_samples=8, num_warmup=50, num_chains=1, compile=False))
    assert set(tree["posterior"]) == {"a.b", "a.b_"}
    assert float(tree["posterior"]["a.b"].mean()) > 4
