"""The folder: complete, readable, each file whole."""

import pandas
import pytest
import torch
from matplotlib.figure import Figure

from vitools import Problem, compare
from vitools.errors import FileError, OptionError
from vitools.models import coin
from vitools.posterior import FactorisedPosterior, Status
from vitools.reporting import write_report
from vitools.reporting.arviz_groups import import_arviz

FILES = ["comparison.csv", "posterior.nc", "bound.png", "marginals.png", "moments.png", "graph.png"]


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
    assert pandas.read_csv(paths[0]).shape[0] == 2
    for path in paths[2:]:
        assert path.read_bytes().startswith(b"\x89PNG")
    stored = import_arviz().from_netcdf(str(paths[1]))
    assert stored.attrs["fit"] == comparison.best == "near"
    assert stored["posterior"]["p"].shape == (1, 1000)


def test_a_chosen_fit_is_stored(comparison, tmp_path):
    paths = write_report(comparison, tmp_path, fit="off")
    assert import_arviz().from_netcdf(str(paths[1])).attrs["fit"] == "off"
    with pytest.raises(OptionError, match=r"no fit 'of'.*Did you mean 'off'"):
        write_report(comparison, tmp_path, fit="of")


def test_unwritable_folder_is_found_out_before_any_work(comparison, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("vitools.reporting.report.to_arviz", None)
    with pytest.raises(FileError, match="cannot write"):
        write_report(comparison, tmp_path / "file")


def test_a_failed_write_leaves_no_half_file(comparison, tmp_path, monkeypatch):
    def fail(self, target, **options):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(FileError, match="disk full"):
        write_report(comparison, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["comparison.csv", "posterior.nc"]
