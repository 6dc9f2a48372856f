"""From fits to ArviZ: groups, dims, coords, values."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, to_arviz
from vitools.engines import cavi, exact, nuts, svi
from vitools.errors import OptionError
from vitools.guides import AutoKumaraswamy
from vitools.models import coin
from vitools.posterior import DrawsPosterior, FactorisedPosterior, Status
from vitools.reporting.arviz.export import GROUPS, build_groups
from vitools.reporting.arviz.groups import import_arviz, save_netcdf

HERE = Path(__file__).parent
ROWS, COLUMNS = 5, 4
BOTH = ("chain", "draw")


def crossed(counts, exposure, rows_scale, scale=1.0):
    """Two crossed plates, event dims, dims without a plate, a discrete latent, deterministics."""
    centre = pyro.sample("centre", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    loose = pyro.sample("loose", dist.Normal(torch.zeros(3), 1.0))
    rows = pyro.plate("rows", ROWS, dim=-2)
    columns = pyro.plate("columns", COLUMNS, dim=-1)
    pyro.deterministic("doubled", 2 * centre)
    with rows:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.deterministic("switched", a * z)
    with columns:
        v = pyro.sample("v", dist.Dirichlet(torch.ones(2)))
    with rows, columns:
        mean = a + 3 * z + v[..., 0] + centre.sum() + loose.sum() + exposure[:, None]
        pyro.sample("counts", dist.Normal(mean, scale), obs=counts)


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randn(ROWS, COLUMNS, generator=generator)
    problem = Problem(crossed, counts, torch.ones(ROWS), rows_scale=torch.ones(3))
    return problem.with_coords(columns=["north", "east", "south", "west"])


@pytest.fixture
def fit(problem):
    factors = {
        "centre": td.Independent(td.Normal(torch.zeros(2), 0.5), 1),
        "loose": td.Normal(torch.zeros(3), 0.4),
        "a": td.Normal(torch.zeros(ROWS, 1), 1.0),
        "z": td.Bernoulli(torch.full((ROWS, 1), 0.3)),
        "v": td.Dirichlet(torch.ones(COLUMNS, 2)),
    }
    return FactorisedPosterior(
        problem, factors, 0.0, engine="cavi", status=Status.CONVERGED, seed=7, seconds=1.5
    )


def test_dims_come_from_plates(fit):
    groups = build_groups(fit, 50)
    dims = {group: {k: d for k, (d, _) in v.items()} for group, v in groups.variables.items()}
    assert dims == {
        "posterior": {
            "centre": (*BOTH, "centre_dim_0"),
            "loose": (*BOTH, "loose_dim_0"),
            "a": (*BOTH, "rows"),
            "v": (*BOTH, "columns", "v_dim_0"),
            "z": (*BOTH, "rows"),
            "doubled": (*BOTH, "doubled_dim_0"),
            "switched": (*BOTH, "rows"),
        },
        "posterior_predictive": {"counts": (*BOTH, "rows", "columns")},
        "log_likelihood": {"counts": (*BOTH, "rows")},
        "log_prior": dict.fromkeys(["centre", "loose", "a", "v"], BOTH),
        "sample_stats": {
            "log_p": BOTH,
            "log_q": BOTH,
            "pareto_khat": (),
            "site_khat": ("khat_site",),
        },
        "prior": {
            "centre": (*BOTH, "centre_dim_0"),
            "loose": (*BOTH, "loose_dim_0"),
            "a": (*BOTH, "rows"),
            "v": (*BOTH, "columns", "v_dim_0"),
            "z": (*BOTH, "rows"),
            "doubled": (*BOTH, "doubled_dim_0"),
            "switched": (*BOTH, "rows"),
        },
        "prior_predictive": {"counts": (*BOTH, "rows", "columns")},
        "observed_data": {"counts": ("rows", "columns")},
        "constant_data": {"exposure": ("rows",), "rows_scale": ("rows_scale_dim_0",)},
    }
    for variables in groups.variables.values():
        for found, array in variables.values():
            assert len(found) == array.ndim
    assert list(groups.coords["columns"]) == ["north", "east", "south", "west"]


def test_values(fit, problem):
    groups = build_groups(fit, 60, seed=2).variables
    values, log_q = fit.sample_with_log_prob(60, 2)
    posterior = {name: array for name, (_, array) in groups["posterior"].items()}
    for name in ("centre", "loose", "a", "v"):
        np.testing.assert_array_equal(posterior[name][0].squeeze(), values[name].squeeze())
    assert set(np.unique(posterior["z"])) == {0.0, 1.0}
    np.testing.assert_allclose(posterior["switched"], posterior["a"] * posterior["z"])
    np.testing.assert_allclose(posterior["doubled"], 2 * posterior["centre"])
    np.testing.assert_array_equal(groups["sample_stats"]["log_q"][1][0], log_q)
    np.testing.assert_allclose(groups["sample_stats"]["log_p"][1][0], problem.log_joint(values))
    np.testing.assert_array_equal(groups["observed_data"]["counts"][1], problem.args[0])
    # log Σ_z p(z) Π_columns N(counts | mean + 3 z, 1), by hand
    base = values["a"] + values["v"][..., 0][:, None, :] + 1.0
    base = base + (values["centre"].sum(-1) + values["loose"].sum(-1))[:, None, None]
    terms = [
        math.log(p) + td.Normal(base + 3 * z, 1.0).log_prob(problem.args[0]).sum(-1)
        for z, p in [(0, 0.7), (1, 0.3)]
    ]
    expected = torch.logsumexp(torch.stack(terms), 0)
    np.testing.assert_allclose(groups["log_likelihood"]["counts"][1][0], expected, rtol=1e-10)
    # densities of the priors by hand; with the data's they are the joint
    standard = td.Normal(0.0, 1.0)
    priors = {
        name: standard.log_prob(values[name]).flatten(1).sum(1) for name in ("centre", "loose", "a")
    }
    priors["v"] = torch.zeros(60)  # flat on a simplex of two
    for name, prior in priors.items():
        np.testing.assert_allclose(groups["log_prior"][name][1][0], prior, atol=1e-12)
    total = sum(priors.values()) + expected.flatten(1).sum(1)
    np.testing.assert_allclose(groups["sample_stats"]["log_p"][1][0], total, rtol=1e-12)


def test_discrete_latents_are_drawn_from_their_conditionals(fit, problem):
    z = build_groups(fit, 2000, seed=1, include=["posterior"]).variables["posterior"]["z"][1][0]
    values = fit.sample(2000, seed=1)
    truth = problem.discrete_marginals(values)["z"][..., 1].squeeze(-1)
    error = (truth * (1 - truth)).sum(0).sqrt() / 2000
    assert (np.abs(z.mean(0) - truth.mean(0).numpy()) < 4 * error.numpy()).all()


def test_attributes(fit):
    attrs = build_groups(fit, 50).attrs
    assert attrs["engine"] == "cavi"
    assert attrs["status"] == "converged"
    assert attrs["model"] == "crossed"
    assert attrs["seed"] == 7
    assert attrs["seconds"] == 1.5
    assert attrs["inference_library"] == "vitools"
    assert math.isfinite(attrs["pareto_khat"])
    assert set(map(type, attrs.values())) <= {str, int, float}


def test_chains_are_kept_and_thinned_on_request(problem):
    generator = torch.Generator().manual_seed(0)
    shapes = {k: s.shape for k, s in problem.continuous.items()}
    draws = {k: torch.rand(4, 100, *s, generator=generator) for k, s in shapes.items()}
    draws["v"] = draws["v"] / draws["v"].sum(-1, keepdim=True)
    fit = DrawsPosterior(problem, draws, divergences=3, engine="nuts", status=Status.SAMPLED)
    groups = build_groups(fit)
    assert groups.variables["posterior"]["a"][1].shape == (4, 100, ROWS)
    np.testing.assert_array_equal(groups.variables["posterior"]["a"][1], draws["a"].squeeze(-1))
    assert groups.variables["log_likelihood"]["counts"][1].shape == (4, 100, ROWS)
    assert "log_q" not in groups.variables["sample_stats"]
    assert groups.attrs["divergences"] == 3
    assert "pareto_khat" not in groups.attrs
    thinned = build_groups(fit, 40, include=["posterior"]).variables["posterior"]["loose"][1]
    assert thinned.shape == (4, 10, 3)
    np.testing.assert_array_equal(thinned[:, [0, -1]], draws["loose"][:, [0, -1]])


def test_only_what_is_asked_for(fit):
    assert set(build_groups(fit, 10, include=["observed_data"]).variables) == {"observed_data"}
    with pytest.raises(OptionError, match=r"no group 'priors' .*Did you mean 'prior'"):
        build_groups(fit, 10, include=["posterior", "priors"])
    with pytest.raises(OptionError, match="positive number of draws"):
        build_groups(fit, 0)
    assert len(GROUPS) == 10


def test_prior_groups_are_draws_from_the_prior(fit):
    groups = build_groups(fit, 1000).variables
    z, a = groups["prior"]["z"][1], groups["prior"]["a"][1]
    assert abs(z.mean() - 0.3) < 4 * math.sqrt(0.21 / z.size)
    assert abs(a.mean()) < 4 / math.sqrt(a.size)
    np.testing.assert_allclose(groups["prior"]["switched"][1], a * z)
    # counts = a + 3 z + v_0 + Σ centre + Σ loose + 1 + noise: mean 3 · .3 + .5 + 1
    counts = groups["prior_predictive"]["counts"][1][0].mean((1, 2))
    assert abs(counts.mean() - 2.4) < 4 * counts.std() / math.sqrt(len(counts))


def test_improper_priors_have_no_draws():
    def model(x):
        mu = pyro.sample("mu", dist.ImproperUniform(torch.distributions.constraints.real, (), ()))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    q = td.Normal(torch.tensor(1.0), 0.5)
    problem = Problem(model, torch.arange(3.0))
    fit = FactorisedPosterior(problem, {"mu": q}, 0.0, engine="test", status=Status.CONVERGED)
    asked = ("posterior", "prior", "prior_predictive")
    assert set(build_groups(fit, 30, include=asked).variables) == {"posterior"}


ENGINES = {
    "cavi": lambda problem: cavi(problem),
    "svi": lambda problem: svi(problem, AutoKumaraswamy, max_steps=300),
    "nuts": lambda problem: nuts(problem, num_samples=60, num_warmup=60, num_chains=2),
    "exact": lambda problem: exact(problem),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_and_netcdf_loses_nothing(engine, tmp_path):
    problem = Problem(coin.model, coin.simulate(20)).with_coords(
        flips=[f"flip {i}" for i in range(20)]
    )
    fit = ENGINES[engine](problem)
    groups = build_groups(fit, 120)
    expected = set(GROUPS) - ({"optimization_history"} if not len(fit.history) else set())
    assert set(groups.variables) == expected - {"constant_data"} | (
        {"constant_data"} & set(groups.variables)
    )
    assert groups.attrs["engine"] == fit.engine
    assert ("log_q" in groups.variables["sample_stats"]) is (engine != "nuts")
    save_netcdf(to_arviz(fit, 120), tmp_path / "fit.nc")
    read = import_arviz().from_netcdf(str(tmp_path / "fit.nc"))
    for group, variables in groups.variables.items():
        for name, (dims, array) in variables.items():
            assert read[group][name].dims == dims
            assert read[group][name].dtype == array.dtype
            np.testing.assert_array_equal(read[group][name].values, array)
        assert read[group].attrs == groups.attrs
    labels = read["posterior_predictive"]["heads"].coords["flips"].values
    assert list(labels[:2]) == ["flip 0", "flip 1"]
    if len(fit.history):
        found = read["optimization_history"]["elbo"]
        assert list(found.coords["optimization_step"].values) == fit.history.steps
        np.testing.assert_array_equal(found.values, fit.history.elbo)


def test_names_that_arviz_keeps_for_itself():
    def model(x, draw):
        with pyro.plate("draw", 3):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(mu + draw, 1.0), obs=x)

    problem = Problem(model, torch.arange(3.0), torch.arange(3.0) + 1).with_coords(draw="abc")
    q = td.Normal(torch.zeros(3), 1.0)
    fit = FactorisedPosterior(problem, {"mu": q}, 0.0, engine="test", status=Status.CONVERGED)
    made = to_arviz(fit, 30)
    assert made["posterior"]["mu"].dims == (*BOTH, "draw_plate")
    assert list(made["posterior"]["mu"].coords["draw_plate"].values) == ["a", "b", "c"]
    assert made["constant_data"]["draw"].dims == ("draw_plate",)


def test_an_argument_named_like_its_plate():
    def model(x, rows):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(mu * rows, 1.0), obs=x)

    problem = Problem(model, torch.arange(3.0), torch.arange(3.0) + 1)
    q = td.Normal(torch.tensor(0.0), 1.0)
    fit = FactorisedPosterior(problem, {"mu": q}, 0.0, engine="test", status=Status.CONVERGED)
    found = to_arviz(fit, 30)["constant_data"]
    assert found["rows_argument"].dims == ("rows",)
    assert found["rows_argument"].values.tolist() == [1.0, 2.0, 3.0]


def test_all_latents_discrete():
    def model(x):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.4, 0.9, 0.3])
    made = to_arviz(exact(Problem(model, x)), 400)
    weights = [
        p * float(td.Normal(z, 1.0).log_prob(x).sum().exp()) for z, p in [(0.0, 0.7), (1.0, 0.3)]
    ]
    truth = weights[1] / sum(weights)
    z = made["posterior"]["z"]
    assert z.dims == BOTH
    assert abs(float(z.mean()) - truth) < 4 * math.sqrt(truth * (1 - truth) / 400)
    assert made["posterior_predictive"]["x"].shape == (1, 400, 3)


def test_arviz_agrees_with_the_fit():
    """A conjugate regression: az.summary gives the posterior's moments, az.loo is untroubled."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, generator=generator)
    y = 1.5 * x + torch.randn(60, generator=generator)

    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    precision = float(x @ x) + 0.01
    mean = float(x @ y) / precision
    q = td.Normal(torch.tensor(mean), precision**-0.5)
    fit = FactorisedPosterior(
        Problem(model, x, y), {"slope": q}, 0.0, engine="cavi", status=Status.CONVERGED
    )
    made = to_arviz(fit, 2000)
    arviz = import_arviz()
    table = arviz.summary(made, kind="stats", round_to="none")
    assert float(table.loc["slope", "mean"]) == pytest.approx(
        mean, abs=4 * (precision * 2000) ** -0.5
    )
    # leave-one-out predictive density of a conjugate regression, in closed form
    expected = 0.0
    for i in range(60):
        rest = precision - float(x[i]) ** 2
        centre = (mean * precision - float(x[i] * y[i])) / rest
        sd = math.sqrt(1 + float(x[i]) ** 2 / rest)
        expected += float(td.Normal(centre * x[i], sd).log_prob(y[i]))
    found = arviz.loo(made)
    elpd = float(found.elpd if hasattr(found, "elpd") else found.elpd_loo)
    assert elpd == pytest.approx(expected, abs=0.1)
    assert made["posterior"].attrs["pareto_khat"] == 0.0


@pytest.mark.parametrize(("prior_sd", "is_sensitive"), [(0.5, True), (50.0, False)])
def test_power_scaling_finds_the_prior_that_matters(prior_sd, is_sensitive):
    """y ~ N(m, 1), four rows of mean 2: scaled by a, the prior N(0, s²) is N(0, s² / a)."""

    def model(y):
        m = pyro.sample("m", dist.Normal(0.0, prior_sd))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(m, 1.0), obs=y)

    y = torch.tensor([1.0, 3.0, 2.5, 1.5])

    def posterior(power):
        precision = 4 + power * prior_sd**-2
        return td.Normal(y.sum() / precision, precision**-0.5)

    fit = FactorisedPosterior(
        Problem(model, y), {"m": posterior(1.0)}, 0.0, engine="exact", status=Status.EXACT
    )
    made = to_arviz(fit, 4000)
    draws, log_prior = made["posterior"]["m"].values[0], made["log_prior"]["m"].values[0]
    for power in (0.7, 1.3):
        weights = np.exp((power - 1) * (log_prior - log_prior.max()))
        found = (weights * draws).sum() / weights.sum()
        error = (
            4
            * float(posterior(power).stddev)
            * (np.square(weights).sum() / weights.sum() ** 2) ** 0.5
        )
        assert found == pytest.approx(float(posterior(power).mean), abs=error)
    arviz = import_arviz()
    if not hasattr(arviz, "psens"):
        pytest.skip("arviz 1.x: arviz_stats.psense")
    found = {
        which: float(arviz.psens(made, component=which)["m"]) for which in ("prior", "likelihood")
    }
    assert (found["prior"] > 0.05) is is_sensitive
    assert found["likelihood"] > 0.05


def test_a_prior_that_hangs_on_a_discrete_latent_is_the_datas():
    """Of m given z, with z summed out of m's and y's densities together, the data's unit has both."""

    def model(y):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        m = pyro.sample("m", dist.Normal(3.0 * z, 1.0))
        pyro.sample("s", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Normal(m + z, 1.0), obs=y)

    problem = Problem(model, torch.tensor(1.2))
    values = problem.prior(20)
    values = {name: values[name] for name in problem.drawn}
    prior, data = problem.log_prior(values), problem.pointwise_log_likelihood(values)
    assert list(prior) == ["s"]
    torch.testing.assert_close(prior["s"], td.Gamma(2.0, 1.0).log_prob(values["s"]))
    torch.testing.assert_close(prior["s"] + sum(data.values()).flatten(), problem.log_joint(values))


def test_posteriors_offer_it_as_a_method(fit):
    made = to_arviz(fit, num_samples=20)
    assert made["posterior"]["loose"].shape == (1, 20, 3)


def test_the_newest_arviz():
    """The assembly's own tests, on an interpreter that has ArviZ 1.x."""
    python = os.environ.get("VITOOLS_ARVIZ1_PYTHON")
    if not python:
        pytest.skip("VITOOLS_ARVIZ1_PYTHON names no interpreter with ArviZ 1.x and pytest")
    script = HERE / "test_arviz_groups.py"
    root = HERE.parents[3]
    command = [python, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(script)]
    environment = os.environ | {"PYTHONPATH": str(root), "MPLBACKEND": "agg"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_loads_neither_arviz_nor_matplotlib():
    script = (
        "import sys, vitools.reporting; "
        "print(sorted({'arviz', 'matplotlib', 'torch', 'xarray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
