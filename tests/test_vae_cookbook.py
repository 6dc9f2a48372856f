"""The cookbook's page on VAEs: its code runs in order, and prints what stands below it."""

import re
from pathlib import Path

import pytest
from running_pages import check

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cookbook" / "vae.md"
NEARLY = {"rel": 0.05, "abs": 0.3}


@pytest.mark.usefixtures("float32_by_default")
def test_what_needs_no_training_prints_what_the_page_says():
    theory, training, _ = PAGE.read_text("utf-8").partition("## 6. Training")
    assert training
    assert check("vae.md", theory, **NEARLY) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_the_whole_page_prints_what_it_says_and_draws_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pictures go there
    page = PAGE.read_text("utf-8")
    assert check("vae.md", page, **NEARLY) > 6
    named = set(re.findall(r"\]\((vae_\w+\.png)\)", page))
    assert named == {path.name for path in tmp_path.iterdir()}


def test_pictures_are_there_and_small():
    named = set(re.findall(r"\]\((vae_\w+\.png)\)", PAGE.read_text("utf-8")))
    assert named == {path.name for path in PAGE.parent.glob("vae_*.png")}
    assert max((PAGE.parent / name).stat().st_size for name in named) < 100_000
