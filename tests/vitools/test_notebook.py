"""What a notebook shows of problems, fits, comparisons and explanations: the rows of what is printed, as HTML."""

from html.parser import HTMLParser
from string import ascii_letters

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, compare, draw, exact, explain
from vitools.notebook.markup import Text, paragraphs, preformatted, table


class Cells(HTMLParser):
    """Texts of the cells, row by row; every tag must be closed."""

    def __init__(self, markup):
        super().__init__()
        self.rows, self.open, self.text = [], [], []
        self.feed(markup)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        self.text.append(data)


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.fixture(scope="module")
def problem():
    return Problem(model, torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64))


def test_markup_of_a_text_is_escaped():
    assert preformatted("a < b") == "<pre>a &lt; b</pre>"
    assert paragraphs(["x & y", "z"]) == "<p>x &amp; y</p><p>z</p>"
    assert Cells(table([["site", "mean"], ["<b>", "1"]])).rows == [["site", "mean"], ["<b>", "1"]]


def test_a_problem_shows_its_sites(problem):
    assert Cells(problem._repr_html_()).rows[1:] == [
        ["mu", "latent", "Normal", "number", ""],
        ["y", "observed", "Normal", "3", "rows 3"],
    ]


def test_a_fit_shows_what_it_prints(problem):
    fit = cavi(problem)
    shown = Cells(fit._repr_html_())
    assert shown.rows[0] == ["site", "mean", "sd"]
    assert shown.rows[1] == str(fit).splitlines()[-1].split()
    assert "converged" in " ".join(shown.text)


def test_a_long_fit_says_how_many_rows_are_left_out():
    def wide(y):
        for letter in ascii_letters:  # numbered sites would be the steps of a loop
            pyro.sample(letter, dist.Normal(0.0, 1.0))
        pyro.sample("data", dist.Normal(0.0, 1.0), obs=y)

    fit = cavi(Problem(wide, torch.tensor(0.5)))
    left = [line for line in str(fit).splitlines() if line.startswith("… ")]
    assert len(left) == 1
    assert left[0] in Cells(fit._repr_html_()).text


def test_a_comparison_shows_its_tables_and_notes(problem):
    comparison = compare({"CAVI": cavi(problem), "exact": exact(problem)})
    shown = Cells(comparison._repr_html_())
    assert [row[0] for row in shown.rows] == ["fit", "CAVI", "exact", "against exact", "CAVI"]
    printed = " ".join(str(comparison).split())
    for row in shown.rows:
        for cell in row:
            assert " ".join(cell.split()) in printed
    assert any(text.startswith("bound: E[log p(y, mu)") for text in shown.text)


def test_an_explanation_is_a_string_that_shows_its_lines(problem):
    words = explain(problem)
    assert isinstance(words, str)
    assert isinstance(words, Text)
    assert repr(words) == str(words)
    assert words.splitlines()[0].startswith("site")
    assert words._repr_html_() == preformatted(words)


def test_a_figure_is_a_picture_without_pyplot(problem):
    picture = draw(problem)._repr_png_()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 1000
