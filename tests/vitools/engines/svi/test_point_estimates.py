"""Guides that put latents at points: fitted, called what they are, and given no widths."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoDelta

from vitools import ImportanceWeighted, Problem, compare, load, nuts, preflight, save, svi, to_arviz
from vitools.errors import NotSupportedError, OptionError
from vitools.guides import AutoMultivariate


def _level(x):
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)


def _vague(x):
    scale = pyro.sample("scale", dist.LogNormal(0.0, 10.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(0.0, scale), obs=x)


DATA = [0.2, 0.5, 0.1]


@pytest.fixture(scope="module")
def problem():
    return Problem(_level, torch.tensor(DATA).double())


@pytest.fixture(scope="module")
def point(problem):
    return svi(problem, AutoDelta, compile=False)


def test_a_point_estimate_is_the_mode_without_width(point):
    assert float(point.mean()["level"]) == pytest.approx(0.2, abs=1e-3)  # Σx / (n + 1)
    assert float(point.sd()["level"]) == 0.0
    assert point.points == ("level",)
    assert "point estimate of level, without widths" in " ".join(str(point).split())


def test_its_verdict_says_so_and_what_gives_widths(point):
    words = " ".join(str(compare({"map": point})).split())
    assert "do not use: a point estimate of level" in words
    assert "laplace() gives widths" in words


def test_it_has_no_density_and_is_no_start(problem, point):
    with pytest.raises(NotSupportedError, match=r"no bound and no widths\. laplace\(problem\)"):
        point.elbo()
    with pytest.raises(NotSupportedError, match="no density"):
        point.log_prob(point.sample(2))
    with pytest.raises(OptionError, match="no spread to begin with"):
        nuts(problem, start=point)
    with pytest.raises(NotSupportedError, match="by the ELBO alone"):
        svi(problem, AutoDelta, objective=ImportanceWeighted(2))


def test_it_is_kept_and_exported(problem, point, tmp_path):
    save(point, tmp_path / "point.safetensors")
    again = load(tmp_path / "point.safetensors", problem)
    assert again.points == ("level",)
    torch.testing.assert_close(again.mean()["level"], point.mean()["level"])
    assert to_arviz(point, num_samples=3)["posterior"]["level"].shape == (1, 3)


def test_one_point_among_distributions_is_named():
    def model(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(level, scale), obs=x)

    def guide(x):
        width = pyro.param("width", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("level", dist.Normal(pyro.param("loc", torch.tensor(0.0)), width))
        place = pyro.param("place", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("scale", dist.Delta(place))

    fit = svi(Problem(model, torch.tensor(DATA)), guide, max_steps=32, compile=False)
    assert fit.points == ("scale",)
    assert float(fit.sd()["level"]) > 0.0


@pytest.mark.usefixtures("float32_by_default")
def test_a_joint_guide_of_a_vague_scale_is_no_point_estimate():
    problem = Problem(_vague, torch.tensor(DATA))
    guide = AutoMultivariate(_vague, init_scale=1e-12)  # its draws are equal after rounding
    assert preflight(problem, guide).points == ()
