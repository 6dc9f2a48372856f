"""A comparison on held-out data: differences datum by datum, tables, the page."""

import json
import math
import re

import pandas
import pytest
import torch
from matplotlib.figure import Figure

from vitools.errors import DataError, OptionError
from vitools.models import coin
from vitools.posterior import Estimate, FactorisedPosterior, Status
from vitools.problem import Problem
from vitools.reporting.held_out.held_out import HeldOutComparison, HeldOutFit
from vitools.reporting.held_out.report import write_held_out_report
from vitools.reporting.page.page import Origin


def fit(bounds, status=Status.CONVERGED, layers=("z",)):
    problem = Problem(coin.model, torch.tensor([1.0, 0.0]).double())
    q = torch.distributions.Beta(torch.tensor(2.0).double(), torch.tensor(2.0).double())
    posterior = FactorisedPosterior(problem, {"p": q}, 0.0, engine="svi", status=status)
    posterior.seconds = 3.21
    return HeldOutFit(
        posterior,
        torch.as_tensor(bounds).double(),
        elbo=Estimate(-24.0, 0.3),
        reconstruction=Estimate(-21.0, 0.2),
        kls={layer: Estimate(1.5, 0.1) for layer in layers},
        active=dict.fromkeys(layers, (2, 3)),
        information=Estimate(1.25, 0.05),
        khat_above=0.125,
        num_parameters=12_345,
    )


@pytest.fixture
def comparison():
    generator = torch.Generator().manual_seed(0)
    hardness = 10 * torch.randn(200, generator=generator, dtype=torch.float64) - 30
    better = hardness + 0.5 + 0.1 * torch.randn(200, generator=generator, dtype=torch.float64)
    fits = {"plain <1>": fit(hardness), "deep": fit(better, layers=("z2", "z1"))}
    return HeldOutComparison(fits, "images", 1000, 2 / 3)


def test_differences_are_those_of_the_same_datum(comparison):
    assert comparison.best == "deep"
    behind = comparison.behind("plain <1>")
    assert behind.value == pytest.approx(0.5, abs=4 * 0.1 / math.sqrt(200))
    assert behind.standard_error == pytest.approx(0.1 / math.sqrt(200), rel=0.2)
    assert comparison.fits["deep"].bound.standard_error > 50 * behind.standard_error
    assert comparison.behind("deep") == Estimate(0.0)


def test_table_has_every_figure_and_its_error(comparison, tmp_path):
    table = comparison.table
    assert table.loc["deep", "kl"] == 3.0
    assert table.loc["deep", "kl_z2"] == 1.5
    assert math.isnan(table.loc["plain <1>", "kl_z2"])
    assert table.loc["plain <1>", "units_z"] == 3
    comparison.to_csv(tmp_path / "t.csv")
    read = pandas.read_csv(tmp_path / "t.csv", index_col="fit")
    assert read.loc["deep", "bound"] == pytest.approx(table.loc["deep", "bound"])
    comparison.to_json(tmp_path / "t.json")
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["best"] == "deep"
    assert record["num_data"] == 200
    assert record["fits"]["deep"]["active_z1"] == 2
    assert "kl_z2" not in record["fits"]["plain <1>"]


def test_text_fits_a_terminal_and_says_what_is_what(comparison):
    text = str(comparison)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^plain <1>  .*0\.50 ± 0\.01", text, flags=re.MULTILINE)
    assert re.search(r"^deep .* best .* 3\.2  converged", text, flags=re.MULTILINE)
    assert "1.50 + 1.50" in text
    assert "2/3 + 2/3" in text
    assert "200 held-out images" in text.replace("\n    ", " ")
    assert "plain <1> 12%, deep 12%" in text.replace("\n    ", " ")


def test_one_fit_alone_is_not_ranked():
    text = str(HeldOutComparison({"VAE": fit([-1.0, -2.0])}, "images", 1000, 2 / 3))
    assert "behind" not in text
    assert re.search(r"^fit +bound  seconds  status", text, flags=re.MULTILINE)


def test_usable_is_what_came_to_a_good_end(comparison):
    assert comparison.is_usable
    stopped = fit([-1.0, -2.0], Status.STOPPED_AT_LIMIT)
    assert not HeldOutComparison({"a": stopped}, "images", 100, 0.5).is_usable


def test_report_is_whole_and_loads_nothing(comparison, tmp_path):
    figure = Figure(figsize=(1, 1))
    origin = Origin("vae", "some <digits>", "vitools compare vae", {"IWAE": "no & never"})
    figures = {"prior_samples": figure, "latent_plane": figure}
    subjects = {"latent_plane": "plain <1>"}
    written = write_held_out_report(comparison, tmp_path, figures, origin, subjects)
    names = ["index.html", "comparison.csv", "comparison.json", *(f"{x}.png" for x in figures)]
    assert [path.name for path in written] == names
    assert all(path.stat().st_size > 0 for path in written)
    page = written[0].read_text(encoding="utf-8")
    assert "{{" not in page
    assert "plain &lt;1&gt;" in page
    assert "some &lt;digits&gt;" in page
    assert "<b>IWAE</b> gave no answer: no &amp; never" in page
    assert "<h3>Prior samples</h3>" in page
    assert "<h3>Latent plane of plain &lt;1&gt;</h3>" in page
    assert "12,345 weights" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<script" not in page


def test_fits_of_different_data_are_refused():
    with pytest.raises(OptionError, match="at least one fit"):
        HeldOutComparison({}, "images", 100, 0.5)
    with pytest.raises(DataError, match=r"'a': 2, 'b': 3"):
        HeldOutComparison({"a": fit([-1, -2]), "b": fit([-1, -2, -3])}, "images", 100, 0.5)
