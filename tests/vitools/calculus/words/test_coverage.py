"""The page of what coordinate ascent takes says what the derivation does, and its example runs."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from vitools.calculus.words.coverage import as_markdown, coverage

PAGE = Path(__file__).resolve().parents[4] / "docs" / "coordinate_ascent.md"


def test_the_table_is_what_the_derivation_answers():
    """If this fails, put the output of as_markdown() in the page's place."""
    assert PAGE.read_text("utf-8").endswith(as_markdown())


def test_most_scalar_distributions_have_a_rule_as_observations():
    rows = coverage()
    assert len(rows) >= 35
    assert sum(bool(row.observation) for row in rows) >= 0.8 * len(rows)


@pytest.mark.usefixtures("float32_by_default")
def test_the_example_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (source,) = (block for block in blocks if "def counts(" in block)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(source, PAGE.name, "exec"), {"__name__": "page"})
    assert "level" in printed.getvalue()
