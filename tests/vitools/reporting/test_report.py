"""The folder: complete, readable, each file whole."""

import warnings
from dataclasses import replace
from pathlib import Path

import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure

from vitools import Problem, compare
from vitools.errors import FileError, OptionError, VitoolsWarning
from vitools.files.ownership import is_own
from vitools.models import coin
from vitools.posterior import FactorisedPosterior, Status
from vitools.reporting import write_report
from vitools.reporting.arviz.groups import import_arviz
from vitools.reporting.report import save_posterior, stored_fits

FILES = ["index.html", "comparison.csv", "comparison.json", "posterior.nc", "posterior_off.nc"]
FILES += ["bound.png", "marginals.png", "moments.png", "graph.png"]


@pytest.fixture(scope="module")
def comparison():
    problem = Problem(coin.model, coin.simulate(20))

    def fit(a, b):
        q = torch.distributions.Beta(torch.tensor(a).double(), torch.tensor(b).double())
        return FactorisedPosterior(problem, {"p": q}, 0.0, engine="test", status=Status.CONVERGED)

    return compare({"off": fit(30.0, 40.0), "near": fit(14.0, 8.0)})


def test_all_files_are_written(comparison, tmp_path):
    paths = write_report(comparison, tmp_path / "report")
    assert [path.name for path in paths] == FILES
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(FILES)
    assert pandas.read_csv(paths[1]).shape[0] == 2
    for path in paths[5:]:
        assert path.read_bytes().startswith(b"\x89PNG")
    stored = import_arviz().from_netcdf(str(paths[3]))
    assert stored.attrs["fit"] == comparison.best == "near"
    assert stored["posterior"]["p"].shape == (1, 1000)
    other = import_arviz().from_netcdf(str(paths[4]))
    assert other.attrs["fit"] == "off"
    assert float(other["posterior"]["p"].mean()) == pytest.approx(30 / 70, abs=0.01)


def test_a_chosen_fit_is_stored_and_the_reference(comparison, tmp_path):
    paths = write_report(comparison, tmp_path, fit="off")
    assert [path.name for path in paths if path.suffix == ".nc"] == ["posterior.nc"]
    assert import_arviz().from_netcdf(str(paths[3])).attrs["fit"] == "off"
    assert stored_fits(replace(comparison, reference="near"), "off") == {
        "posterior.nc": "off",
        "posterior_near.nc": "near",
    }
    with pytest.raises(OptionError, match=r"no fit 'of'.*Did you mean 'off'"):
        write_report(comparison, tmp_path, fit="of")


def test_unwritable_folder_is_found_out_before_any_work(comparison, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("vitools.reporting.report.to_arviz", None)
    with pytest.raises(FileError, match="cannot write"):
        write_report(comparison, tmp_path / "file")


def test_files_of_others_are_kept_unless_forced_and_its_own_replaced(comparison, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "moments.png").write_bytes(b"\x89PNG of mine")
    with pytest.raises(FileError, match=r"moments.png' was not written by vitools.* --force"):
        write_report(comparison, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["moments.png", "notes.txt"]
    write_report(comparison, tmp_path, force=True)
    write_report(comparison, tmp_path)  # each file now says whose it is
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert all(is_own(tmp_path / name) for name in FILES)


def test_a_failed_write_leaves_the_folder_as_it_was(comparison, tmp_path, monkeypatch):
    whole_figure = Figure.savefig

    def fail(self, target, **options):
        if not isinstance(target, Path):  # the page's graph, drawn in memory
            return whole_figure(self, target, **options)
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(FileError, match="disk full"):
        write_report(comparison, tmp_path)
    assert list(tmp_path.iterdir()) == []


def large_problem(rows):
    def model(y):
        with pyro.plate("rows", rows):
            loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    return Problem(model, torch.zeros(rows))


OF_ROWS = ["log_likelihood", "posterior_predictive", "prior", "prior_predictive"]
OTHERS = ["log_likelihood", "log_prior", "posterior_predictive", "prior", "prior_predictive"]


# 8 bytes × 1000 draws × rows for each of loc, y's log density, y replicated, loc and y of the
# prior, in that order, against 8 MB (and 8 kB for the log density of all of loc); where loc itself has to
# be thinned it stands alone; below 100 draws it does not go
@pytest.mark.parametrize(
    ("rows", "draws", "left_out"),
    [
        (190, 1000, []),
        (300, 1000, ["prior", "prior_predictive"]),
        (600, 1000, OF_ROWS),
        (4000, 250, OTHERS),
        (11_000, 100, OTHERS),
    ],
)
def test_a_large_posterior_is_thinned_and_that_is_said(tmp_path, rows, draws, left_out):
    q = torch.distributions.Normal(torch.zeros(rows), torch.ones(rows))
    fit = FactorisedPosterior(
        large_problem(rows), {"loc": q}, 0.0, engine="test", status=Status.CONVERGED
    )
    path = tmp_path / "posterior.nc"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VitoolsWarning)
        save_posterior(fit, path)
    notes = [str(w.message) for w in caught if w.category is VitoolsWarning]
    assert path.stat().st_size < 17_000_000
    stored = import_arviz().from_netcdf(str(path))
    assert stored["posterior"]["loc"].shape == (1, draws, rows)
    assert not set(left_out) & set(stored.groups())
    assert len(notes) == bool(left_out)
    if notes:
        assert f"without {', '.join(left_out)}: all would take" in notes[0]
        assert (f"posterior.nc: {draws} of 1000 draws, " in notes[0]) == (draws < 1000)
    if rows == 600:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_posterior(fit, path, num_samples=50)
        stored = import_arviz().from_netcdf(str(path))
        assert stored["posterior_predictive"]["y"].shape == (1, 50, rows)


def test_a_model_too_large_to_draw_still_has_its_report(comparison, tmp_path, monkeypatch):
    monkeypatch.setattr("vitools.reporting.graph.drawing.MOST", 1)
    with pytest.warns(VitoolsWarning, match="no graph.png: the model has 2 nodes"):
        paths = write_report(comparison, tmp_path)
    assert [path.name for path in paths] == FILES[:-1]
    assert "No graph: the model has 2 nodes" in paths[0].read_text("utf-8")
