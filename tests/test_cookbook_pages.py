"""The cookbook's pages: their code runs in order, and prints what stands below it."""

import re
from pathlib import Path

import pytest
from running_pages import check

COOKBOOK = Path(__file__).resolve().parents[1] / "docs" / "cookbook"
PAGES = ("information", "design", "fields", "qubits_and_cavities", "densities")


def named(name):
    """The pictures that a page shows."""
    return set(
        re.findall(rf"\]\(({name}_\w+\.png)\)", (COOKBOOK / f"{name}.md").read_text("utf-8"))
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_what_it_says_and_draws_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pictures go there
    page = (COOKBOOK / f"{name}.md").read_text("utf-8")
    assert check(f"{name}.md", page, rel=0.02, abs=0.02) > 5
    assert named(name) == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", PAGES)
def test_pictures_are_there_and_small(name):
    assert named(name) == {path.name for path in COOKBOOK.glob(f"{name}_*.png")}
    assert max((COOKBOOK / picture).stat().st_size for picture in named(name)) < 100_000
