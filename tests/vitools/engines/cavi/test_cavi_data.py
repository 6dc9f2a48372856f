"""cavi() on real data and on the less common ways to write a model."""

import csv
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import load, save
from vitools.engines.cavi.cavi import cavi
from vitools.problem import Problem

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")


def double(x):
    return torch.tensor(x, dtype=torch.float64)


def column(file, *names):
    with (SHARED / file).open() as lines:
        rows = list(csv.DictReader(lines))
    return double([[float(row[name]) for name in names] for row in rows])


def mixture(y, components=6):
    eye = torch.eye(2, dtype=torch.float64)
    few = torch.full((components,), 0.01, dtype=torch.float64)
    weights = pyro.sample("weights", dist.Dirichlet(few))
    with pyro.plate("components", components):
        mean = pyro.sample("mean", dist.MultivariateNormal(eye[0] * 0, 4 * eye))
        precision = pyro.sample("precision", dist.Wishart(double(4.0), covariance_matrix=eye))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.MultivariateNormal(mean[z], precision_matrix=precision[z]), obs=y)


@needs_data
# torch warns of a singular Wishart draw although it redraws it.
def test_faithful_has_its_two_clusters():
    y = column("faithful/faithful.csv", "eruptions", "waiting")
    centre, spread = y.mean(0), y.std(0)
    fit = cavi(Problem(mixture, (y - centre) / spread), restarts=2)
    weights = fit.mean()["weights"]
    heavy = (weights > 0.2).nonzero().squeeze(1)
    means = fit.mean()["mean"][heavy] * spread + centre
    means = means[means[:, 0].argsort()]
    # The maximum-likelihood fit of two components (Azzalini and Bowman's data) is well known.
    assert len(heavy) == 2
    assert torch.allclose(means, double([[2.04, 54.5], [4.29, 79.97]]), atol=0.6)
    assert torch.allclose(weights[heavy].sort().values, double([0.356, 0.644]), atol=0.03)


@needs_data
def test_galaxies_separate_the_two_outlying_groups():
    y = column("galaxies/galaxies.csv", "dat")[:, 0] / 1000

    def model(y):
        weights = pyro.sample("weights", dist.Dirichlet(torch.full((8,), 0.1).double()))
        with pyro.plate("components", 8):
            mean = pyro.sample("mean", dist.Normal(double(20.0), double(10.0)))
            tau = pyro.sample("tau", dist.Gamma(double(2.0), double(1.0)))
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("y", dist.Normal(mean[z], tau[z].rsqrt()), obs=y)

    fit = cavi(Problem(model, y))
    mean, weights = fit.mean()["mean"], fit.mean()["weights"]
    low, high = mean.argmin(), mean.argmax()
    # Seven galaxies recede at about 9 700 km/s, three at about 33 000 km/s.
    assert float(mean[low]) == pytest.approx(9.7, abs=0.3)
    assert float(mean[high]) == pytest.approx(33.0, abs=0.6)
    assert float(weights[low]) == pytest.approx(7 / 82, abs=0.01)
    assert float(weights[high]) == pytest.approx(3 / 82, abs=0.01)


def test_a_subsampled_plate_is_fitted_on_all_its_rows():
    y = torch.randn(30, generator=torch.Generator().manual_seed(0))

    def model(y, size):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 30, subsample_size=size) as rows:
            pyro.sample("y", dist.Normal(m, 1.0), obs=y[rows])

    bounds = [cavi(Problem(model, y, size)).elbo().value for size in (5, 30)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-12)


def test_a_factor_statement_counts():
    def model():
        m = pyro.sample("m", dist.Normal(double(0.0), double(1.0)))
        pyro.factor("pull", -0.5 * (m - 1) ** 2)
        pyro.sample("y", dist.Normal(m, double(1.0)), obs=double(2.0))

    marginal = cavi(Problem(model)).marginal("m")
    assert float(marginal.mean) == pytest.approx(1.0)
    assert float(marginal.variance) == pytest.approx(1 / 3)


def test_a_factor_model_can_be_saved(tmp_path):
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(4, 5, generator=generator).double()
    y = y + 3 * torch.outer(torch.arange(4.0) - 1, torch.arange(5.0) - 2).double()

    def model(y):
        with pyro.plate("factors", 2, dim=-1):
            with pyro.plate("rows", 4, dim=-2):
                w = pyro.sample("w", dist.Normal(double(0.0), double(1.0)))
            with pyro.plate("columns", 5, dim=-2):
                x = pyro.sample("x", dist.Normal(double(0.0), double(1.0)))
        with pyro.plate("rows_of_y", 4, dim=-2), pyro.plate("columns_of_y", 5, dim=-1):
            pyro.sample("y", dist.Normal(w @ x.T, double(0.3)), obs=y)

    problem = Problem(model, y)
    fit = cavi(problem)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    assert torch.allclose(again.mean()["w"], fit.mean()["w"])
    assert again.elbo().value == fit.elbo().value
    assert cavi(problem, factorised=["w", "x"]).elbo().value <= fit.elbo().value + 1e-6


def test_topics_separate_and_inner_sweeps_help():
    generator = torch.Generator().manual_seed(2)
    truth = torch.tensor([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0.5, 0.5]])
    documents = torch.arange(40).repeat_interleave(30)
    words = torch.multinomial(truth[documents % 3], 1, generator=generator)[:, 0]

    def model(words):
        with pyro.plate("topics", 3):
            phi = pyro.sample("phi", dist.Dirichlet(torch.full((6,), 0.1).double()))
        with pyro.plate("documents", 40):
            theta = pyro.sample("theta", dist.Dirichlet(torch.full((3,), 0.1).double()))
        with pyro.plate("words", len(words)):
            z = pyro.sample("z", dist.Categorical(theta[documents]))
            pyro.sample("word", dist.Categorical(phi[z]), obs=words)

    fit = cavi(Problem(model, words), inner=["z", "theta"], inner_sweeps=5, warmup_sweeps=5)
    phi = fit.mean()["phi"]
    found = phi[phi[:, [0, 2, 4]].argmax(0)]
    assert torch.allclose(found, truth.double(), atol=0.08)
