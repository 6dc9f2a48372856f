"""``--formula`` in the place of a model: fit, explain, compare, draw, and what is wrong with it."""

import re

import numpy as np
import pytest

from vitools import from_formula, load

FORMULA = "speed ~ `day of year` + (1 | team)"


@pytest.fixture
def table(folder):
    """Three teams over six days."""
    rng = np.random.default_rng(0)
    rows = ["speed,day of year,team,gap"]
    for team in ("red", "green", "blue"):
        level = rng.normal(10, 2)
        for day in range(6):
            rows.append(
                f"{level + day + rng.normal():.4f},{day},{team},{'NA' if day == 2 else day}"
            )
    path = folder / "speeds.csv"
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def test_fit_prints_labels_and_keeps_the_fit(vitools, table, folder):
    formula = "speed ~ `day of year` + team"
    result = vitools(
        *("fit", "--formula", formula, "--data", table, "--method", "laplace"),
        *("--out", "out", "--draws", "20"),
    )
    assert result.exit_code in (0, 1), result.output  # whatever is thought of it
    assert "team[green] " in result.stdout
    assert "day of year " in result.stdout
    again = load(folder / "out" / "fit.safetensors", from_formula(formula, table))
    assert again.mean()["team"].shape == (2,)


@pytest.mark.slow
def test_groups_are_drawn_by_their_labels(vitools, table, folder):
    result = vitools(
        *("fit", "--formula", FORMULA, "--data", table, "--method", "cavi"),
        *("--out", "out", "--draws", "20"),
    )
    assert result.exit_code in (0, 1), result.output
    assert "1|team[blue] " in result.stdout
    written = {path.name for path in (folder / "out").iterdir()}
    assert written == {"fit.safetensors", "posterior.nc", "effects_1_team.png"}


def test_explain_and_draw_take_formulas(vitools, table, folder):
    result = vitools("explain", "--formula", "speed ~ gap", "--data", table, "--missing", "drop")
    assert result.exit_code == 0
    assert "gap, Intercept  MultivariateNormal" in result.stdout
    assert "3 rows that lack a value are left out" in result.stderr
    vitools("draw", "--formula", FORMULA, "--data", table, "--out", "graph.svg")
    assert "team" in (folder / "graph.svg").read_text("utf-8")


@pytest.mark.slow
def test_labels_reach_the_report(vitools, table, folder):
    result = vitools(
        *("compare", "--formula", FORMULA, "--data", table, "--methods", "cavi,nuts"),
        *("--report", "report"),
    )
    assert result.exit_code in (0, 1), result.output
    page = (folder / "report" / "index.html").read_text("utf-8")
    assert "--formula &#x27;speed ~ `day of year`" in page or "speed ~ `day of year`" in page
    assert "green" in page


WRONG = [
    ([], r"expected MODEL, a shipped name \(vitools list\) or path/to/file.py:function, or --formula"),
    (["coin", "--formula", "y ~ x"], "'coin' and --formula are two models"),
    (["--family", "poisson"], "--family poisson: of which response"),
    (["--formula", "y ~ x"], "--formula 'y ~ x': of which columns"),
    (["--formula", "speed ~ dayz", "--data", "speeds.csv"], "no column 'dayz'.*speed, day of year, team"),
    (["--formula", "speed ~ gap", "--data", "speeds.csv"], "column 'gap': missing in row 2"),
    (["--formula", "speed ~", "--data", "speeds.csv"], "cannot be read"),
    (["--formula", FORMULA, "--family", "posson", "--data", "speeds.csv"], "Did you mean 'poisson'"),
    (["--formula", FORMULA, "--data", "speeds.csv", "--columns", "y=speed"], "a formula names columns itself"),
    (["--formula", FORMULA, "--data", "speeds.csv", "--missing", "mask"], "Use --missing drop"),
    (["--formula", FORMULA, "--data", "nowhere.csv"], "nowhere.csv"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_is_wrong_is_said(refused, table, options, said):
    message = refused("fit", *options)
    assert re.search(said, message), message
