"""Assembling under whatever ArviZ is installed. Needs neither torch nor Pyro, so that the newest
ArviZ can be tested on an interpreter that has only it."""

import warnings

import numpy as np
import pytest

from vitools.errors import FileError
from vitools.reporting.arviz.groups import Groups, assemble, import_arviz, save_netcdf

arviz = import_arviz()
IS_NEW = int(arviz.__version__.split(".")[0]) >= 1


@pytest.fixture
def groups() -> Groups:
    """A regression y_n ~ N(β·x_n, σ) with draws near its posterior."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = x @ [1.0, -1.0] + rng.normal(size=40)
    beta = np.linalg.lstsq(x, y)[0] + 0.19 * rng.normal(size=(2, 300, 2))
    log_likelihood = -0.5 * (y - beta @ x.T) ** 2 - 0.5 * np.log(2 * np.pi)
    both = ("chain", "draw")
    return Groups(
        {
            "posterior": {
                "beta": ((*both, "terms"), beta),
                "z": ((*both, "rows"), rng.integers(2, size=(2, 300, 40))),
                "is_on": (both, rng.random((2, 300)) > 0.5),
            },
            "posterior_predictive": {
                "y": ((*both, "rows"), beta @ x.T + rng.normal(size=(2, 300, 40)))
            },
            "log_likelihood": {"y": ((*both, "rows"), log_likelihood)},
            "sample_stats": {
                "log_p": (both, log_likelihood.sum(-1)),
                "log_q": (both, -0.5 * (beta - beta.mean((0, 1))) ** 2 @ np.ones(2) / 0.19**2),
                "pareto_khat": ((), np.asarray(0.31)),
                "site_khat": (("khat_site",), np.asarray([0.2, 0.3])),
            },
            "prior": {"beta": ((*both, "terms"), rng.normal(size=(1, 50, 2)))},
            "optimization_history": {
                "elbo": (("optimization_step",), np.linspace(-90.0, -60.0, 7)),
                "seconds": (("optimization_step",), np.linspace(0.0, 1.0, 7)),
            },
            "observed_data": {"y": (("rows",), y)},
            "constant_data": {"x": (("rows", "x_dim_0"), x)},
        },
        coords={
            "terms": np.array(["left", "right"]),
            "khat_site": np.array(["beta", "z"]),
            "optimization_step": np.arange(0, 70, 10),
        },
        attrs={"engine": "svi", "seed": 3, "seconds": 0.25},
    )


def test_kind_and_contents(groups):
    made = assemble(groups)
    assert type(made).__name__ == ("DataTree" if IS_NEW else "InferenceData")
    for group, variables in groups.variables.items():
        for name, (dims, array) in variables.items():
            found = made[group][name]
            assert found.dims == dims
            np.testing.assert_array_equal(found.values, array)
    beta = made["posterior"]["beta"]
    assert list(beta.coords["terms"].values) == ["left", "right"]
    assert list(made["observed_data"]["y"].coords["rows"].values) == list(range(40))
    assert made.attrs["engine"] == made["posterior"].attrs["engine"] == "svi"
    assert not set(made["observed_data"].dims) & {"chain", "draw"}


def test_netcdf_round_trip(groups, tmp_path):
    path = tmp_path / "fit.nc"
    save_netcdf(assemble(groups), path)
    read = arviz.from_netcdf(str(path))
    for group, variables in groups.variables.items():
        for name, (dims, array) in variables.items():
            assert read[group][name].dims == dims
            np.testing.assert_array_equal(read[group][name].values, array)
    assert list(read["posterior"]["beta"].coords["terms"].values) == ["left", "right"]
    assert read.attrs["seed"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["fit.nc"]


def test_a_failed_write_keeps_the_old_file(groups, tmp_path):
    path = tmp_path / "fit.nc"
    path.write_text("old")
    groups.coords["terms"] = np.array([1, "right"], dtype=object)
    with pytest.raises(FileError, match="Labels of a plate"):
        save_netcdf(assemble(groups), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["fit.nc"]


def test_summary(groups):
    table = arviz.summary(assemble(groups), var_names=["beta"])
    assert list(table.index) == ["beta[left]", "beta[right]"]
    expected = groups.variables["posterior"]["beta"][1].mean((0, 1))
    assert np.asarray(table["mean"], dtype=float) == pytest.approx(expected, abs=0.01)


def test_loo(groups):
    found = arviz.loo(assemble(groups), pointwise=True)
    pointwise = groups.variables["log_likelihood"]["y"][1].reshape(-1, 40)
    # importance-sampled leave-one-out without smoothing, which close weights do not need
    expected = -np.log(np.exp(-pointwise).mean(0)).sum()
    elpd = found.elpd if IS_NEW else found.elpd_loo
    assert float(elpd) == pytest.approx(expected, abs=0.1)
    assert not found.warning


def test_loo_of_an_approximate_posterior(groups):
    if not hasattr(arviz, "loo_approximate_posterior"):
        pytest.skip("this ArviZ has no loo_approximate_posterior")
    made = assemble(groups)
    stats = made["sample_stats"]
    found = arviz.loo_approximate_posterior(made, log_p=stats["log_p"], log_q=stats["log_q"])
    assert np.isfinite(float(found.elpd))


def test_plots(groups, tmp_path):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    made = assemble(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what ArviZ asks of matplotlib is not ours
        if IS_NEW:
            arviz.plot_dist(made, var_names=["beta"], backend="matplotlib")
            arviz.plot_forest(made, var_names=["beta"], backend="matplotlib")
            arviz.plot_ppc_dist(made, backend="matplotlib")
        else:
            arviz.plot_posterior(made, var_names=["beta"])
            arviz.plot_forest(made, var_names=["beta"])
            arviz.plot_ppc(made, num_pp_samples=10)
    assert len(pyplot.get_fignums()) == 3
    pyplot.close("all")


def test_importing_arviz_is_quiet():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_arviz()
    assert not caught
