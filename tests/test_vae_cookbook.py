"""The cookbook's page on VAEs: its code runs in order, and prints what stands below it."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cookbook" / "vae.md"
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<said>.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?")


def run(page: str) -> list[tuple[str, str]]:
    """What the page says each block prints, and what it does print."""
    namespace: dict[str, object] = {"__name__": "cookbook"}
    found = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(BLOCK.finditer(page)):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block["code"], f"vae.md, python block {i + 1}", "exec"), namespace)
            found.append((block["said"] or "", printed.getvalue()))
    return found


def check(page: str) -> int:
    """Every number printed is the page's, but for the last digits of another machine."""
    blocks = run(page)
    for said, printed in blocks:
        assert NUMBER.sub("#", said).split() == NUMBER.sub("#", printed).split()
        for before, now in zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True):
            assert float(now) == pytest.approx(float(before), rel=0.05, abs=0.3)
    return len(blocks)


@pytest.mark.usefixtures("float32_by_default")
def test_what_needs_no_training_prints_what_the_page_says():
    theory, training, _ = PAGE.read_text("utf-8").partition("## 6. Training")
    assert training
    assert check(theory) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_the_whole_page_prints_what_it_says_and_draws_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pictures go there
    page = PAGE.read_text("utf-8")
    assert check(page) == len(re.findall(r"^```python$", page, flags=re.MULTILINE))
    named = set(re.findall(r"\]\((vae_\w+\.png)\)", page))
    assert named == {path.name for path in tmp_path.iterdir()}


def test_pictures_are_there_and_small():
    named = set(re.findall(r"\]\((vae_\w+\.png)\)", PAGE.read_text("utf-8")))
    assert named == {path.name for path in PAGE.parent.glob("vae_*.png")}
    assert max((PAGE.parent / name).stat().st_size for name in named) < 100_000
