"""The page as text: whole, self-contained, small, and safe whatever the model's names are."""

import json
import math
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from page_cases import HOSTILE, hostile_comparison

from vitools import Problem, compare
from vitools.diagnostics.calibration.calibration import Calibration
from vitools.engines import exact
from vitools.models import coin
from vitools.posterior import DrawsPosterior, FactorisedPosterior, Status
from vitools.reporting.comparison.json import comparison_record
from vitools.reporting.page.calibration import rank_histograms
from vitools.reporting.page.data import as_script_data, page_data
from vitools.reporting.page.evidence import bounds_markup, distances_markup
from vitools.reporting.page.page import Origin, page
from vitools.reporting.page.summary import summary_markup
from vitools.reporting.page.template import asset, fill
from vitools.reporting.page.updates import table_markup, updates_markup

ORIGIN = Origin("mymodel.py:model", "data from my.csv", "vitools compare mymodel.py:model --seed 3")
VOID = {"meta", "link", "img", "br", "input"}


class Outline(HTMLParser):
    """Every tag that is opened, with its attributes; refuses tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text():
    return page(hostile_comparison(), ORIGIN)


def test_the_markup_is_well_formed_and_nothing_is_fetched(text):
    outline = Outline(text)
    assert outline.open == []
    assert ("html", {"lang": "en"}) in outline.tags
    fetching = [
        (tag, name)
        for tag, attributes in outline.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action")
        and not (value.startswith("#") or value == "data:,")
    ]
    assert fetching == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_only_the_pages_own_scripts_are_in_it(text):
    scripts = [attributes for tag, attributes in Outline(text).tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert "script-src 'sha256-" in text
    assert "<img" not in text


def test_every_placeholder_is_filled_once(text):
    # what a user named {{x}} stands, escaped or as JSON, and nothing else of the kind does
    assert set(re.findall(r"\{\{\{?\w+\}\}\}?", text)) == {"{{x}}"}
    assert fill("{{a}}{{{b}}}", a="{{b}}", b="{{a}}") == "{{b}}{{a}}"
    with pytest.raises(KeyError):
        fill("{{a}}")


def test_data_survive_the_script_element():
    value = {"name": "</script><!--\u2028&", "x": [1.5, None]}
    text = as_script_data(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        as_script_data(float("nan"))


def test_verdicts_come_first_and_say_why(text):
    order = [
        text.index(f'id="{name}"') for name in ("verdicts", "table", "bound", "sites", "model")
    ]
    assert order == sorted(order)
    for judgement in hostile_comparison().judgements.values():
        assert judgement.verdict.grade.value in text
    assert "he sd of many[" in text
    assert "too narrow" in text


def test_it_says_how_to_reproduce_it_and_nothing_of_the_machine(text, tmp_path, monkeypatch):
    assert "vitools compare mymodel.py:model --seed 3" in text
    assert re.search(r"vitools \d+\.\d+\.\d+, pyro \d", text)
    for private in (str(tmp_path.anchor) + "home", "/root", "/tmp", "/usr", "/work", "hostname"):
        assert private not in text.replace("/text", "")


def many_fits(count, entries):
    draws = torch.randn(
        2, 200, entries, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )

    def wide(x):
        one = x.new_ones(())
        theta = pyro.sample("theta", dist.Normal(x.new_zeros(entries), one).to_event(1))
        pyro.sample("x", dist.Normal(theta.sum(), one), obs=x)

    problem = Problem(wide, torch.tensor(1.0).double())
    return compare(
        {
            f"chains {i}": DrawsPosterior(
                problem, {"theta": draws + 0.1 * i}, engine="nuts", status=Status.SAMPLED
            )
            for i in range(count)
        }
    )


@pytest.mark.parametrize(
    ("count", "entries"), [(30, 20), pytest.param(2, 5000, marks=pytest.mark.slow)]
)
def test_it_stays_small(count, entries):
    comparison = many_fits(count, entries)
    text = page(comparison, ORIGIN)
    assert len(text.encode()) < 3_000_000
    (site,) = page_data(comparison)["sites"]
    assert site["total"] == entries
    assert len(site["entries"]) == min(entries, 60)
    assert len(comparison_record(comparison)["moments"]) == min(entries, 1000)


def test_a_single_fit_of_a_model_without_continuous_latents_has_a_page():
    def switch(x):
        z = pyro.sample("z", dist.Bernoulli(x.new_tensor(0.5)))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    problem = Problem(switch, torch.tensor(0.3).double())
    comparison = compare({"only": exact(problem)})
    data = page_data(comparison)
    assert data["sites"] == data["pairs"] == []
    assert Outline(page(comparison, ORIGIN)).open == []


def test_the_fits_disagreement_decides_the_first_site_and_the_pairs():
    data = page_data(hostile_comparison())
    assert {site["name"] for site in data["sites"]} == {"many", HOSTILE}
    best = data["pairs"][0]
    assert {best["x"]["label"], best["y"]["label"]} == {"many[0]", "many[1]"}  # made to correlate
    assert best["r"][2] == pytest.approx(0.8, abs=0.1)
    assert max(map(abs, best["r"][:2])) < 0.15


def test_curves_keep_the_mass_of_the_draws():
    (site,) = (site for site in page_data(hostile_comparison())["sites"] if site["name"] == HOSTILE)
    for curve in site["entries"][0]["d"]:
        step = (curve["high"] - curve["low"]) / (len(curve["y"]) - 1)
        mass = sum(curve["y"]) / 999 * curve["peak"] * step
        assert mass == pytest.approx(1.0, abs=0.01)


def test_the_record_for_machines_is_json_with_every_figure(tmp_path):
    comparison = hostile_comparison()
    comparison.to_json(tmp_path / "comparison.json")
    read = json.loads((tmp_path / "comparison.json").read_text("utf-8"))
    table = comparison.table
    assert list(read["fits"]) == list(table.index)
    for name, fit in read["fits"].items():
        assert fit["verdict"] == table.loc[name, "verdict"]
        if fit["bound"] is not None:
            assert fit["bound"]["value"] == table.loc[name, "bound"]
            assert fit["mean_error"]["at"] == table.loc[name, "mean_error_at"]
    assert read["fits"]["chains"]["bound"] is None
    moments = comparison.judgements["narrow"].moments["many"]
    assert read["moments"]["many[3]"]["narrow"]["sd"] == float(moments.sd[3])
    assert read["reference"] == "chains"


def test_the_style_sheet_has_both_themes_and_print():
    style = asset("page.css")
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def cells(markup):
    """The text of every row of a table's body."""
    rows = re.findall(r"<tr>(.*?)</tr>", markup, re.DOTALL)[1:]
    return [[unescape(c) for c in re.findall(r">([^<]*)</t[dh]>", row)] for row in rows]


def test_updates_are_the_table_that_explain_prints():
    markup = updates_markup(Problem(coin.model, coin.simulate(20, seed=0)))
    assert [row[0] for row in cells(markup)] == ["p"]
    assert cells(markup)[0][3].startswith("Beta(")
    assert "1 of 1 latents have closed-form updates" in markup


def test_a_reason_over_several_lines_is_one_cell():
    text = (
        "site     family  parents  update\n"
        "a < b    Normal  -        none: it is not conjugate, at\n"
        "                                considerable length\n"
        "                                use nuts()\n"
        "scale    Gamma   a < b    Gamma(2, 3)\n"
        "1 of 2 latents have closed-form updates."
    )
    found = cells(table_markup(text))
    assert found == [
        ["a < b", "Normal", "-", "none: it is not conjugate, at considerable length; use nuts()"],
        ["scale", "Gamma", "a < b", "Gamma(2, 3)"],
    ]


def test_a_calibration_becomes_panels_the_least_uniform_first():
    generator = np.random.default_rng(0)
    levels = {"flat": generator.uniform(size=200), "narrow": generator.beta(0.4, 0.4, size=200)}
    found = rank_histograms("CAVI", Calibration(levels, {}, {}, {}, 100))
    assert [(ranks.fit, ranks.quantity) for ranks in found] == [
        ("CAVI", "narrow"),
        ("CAVI", "flat"),
    ]
    assert [sum(ranks.counts) for ranks in found] == [200, 200]
    assert found[0].p_value < 1e-4 < found[1].p_value


def coin_fits(*names):
    """Fits of one problem: exact, good, narrow, and a chain."""
    problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]).double())

    def beta(a, b):
        q = torch.distributions.Beta(*torch.tensor([a, b]).double())
        return FactorisedPosterior(
            problem, {"p": q}, 0.0, engine="cavi", status=Status.CONVERGED, seconds=1.0
        )

    made = {
        "exact": lambda: exact(problem),
        "good": lambda: beta(3.0, 2.0),
        "near": lambda: beta(3.05, 2.0),
        "wide": lambda: beta(1.2, 0.85),
        "narrow": lambda: beta(120.0, 80.0),
    }
    return {name: made[name]() for name in names}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("exact", "near", "good", "narrow"),
            "3 approximations judged against exact (…). Agreeing with it: near, good (best bound first).",
        ),
        (
            ("exact", "wide"),
            "1 approximation judged against exact (…). None to trust outright; to be used with care: "
            "wide.",
        ),
        (
            ("exact", "narrow"),
            "1 approximation judged against exact (…). None should be used in place of exact.",
        ),
        (("exact",), "exact (…), and no other fit to judge by it."),
        (("good",), "1 fit judged without a reference. To rely on: good."),
        (
            ("narrow",),
            "1 fit judged without a reference. None should be used: add a reference (nuts, exact) or "
            "other methods.",
        ),
    ],
)
def test_the_reference_judges_and_is_no_candidate(names, expected):
    found = summary_markup(compare(coin_fits(*names)))
    plain = unescape(re.sub(r"<[^>]*>", "", found))
    assert re.sub(r"exact \(.*?\)(?=[.,])", "exact (…)", plain) == expected


def test_bounds_and_distances_are_the_judges():
    comparison = compare(coin_fits("exact", "wide", "narrow"))
    outline = unescape(page(comparison, ORIGIN))
    record = comparison_record(comparison)["fits"]
    for name in ("wide", "narrow"):
        known = comparison.judgements[name].evidence
        truth = math.log(1 / 12)
        assert known.lower[1].value < known.lower[10].value < truth + 0.05
        for k in (1, 10, 100):
            shown = f"{known.lower[k].value:.2f}".replace("-", "−")
            assert shown in outline
            assert record[name]["evidence"]["lower"][str(k)]["value"] == known.lower[k].value
        distance = comparison.judgements[name].distance
        assert f"at {distance.quantile_error_at}" in outline
        assert record[name]["distance"]["quantile_error"]["value"] == distance.quantile_error.value
        assert record[name]["distance"]["correlation_error"] is None  # there is one entry only
    assert (record["wide"]["guaranteed"] is None) == (
        comparison.judgements["wide"].khat.value >= 0.5
    )
    assert "Distances from exact" in outline
    assert bounds_markup(comparison).count("<tr>") == 4
    alone = compare(coin_fits("wide"))
    assert distances_markup(alone) == ""
