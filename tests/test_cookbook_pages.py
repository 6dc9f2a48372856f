"""The cookbook's pages on information and design: their code runs in order, and prints what stands below it."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest
import torch

COOKBOOK = Path(__file__).resolve().parents[1] / "docs" / "cookbook"
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<said>.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?")


def run(page):
    """What the page says each block prints, and what it does print."""
    namespace = {"__name__": "cookbook"}
    found = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(BLOCK.finditer(page.read_text("utf-8"))):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(
                    compile(block["code"], f"{page.name}, python block {i + 1}", "exec"), namespace
                )
            found.append((block["said"] or "", printed.getvalue()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["information", "design"])
def test_a_page_prints_what_it_says_and_draws_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pictures go there
    page = COOKBOOK / f"{name}.md"
    blocks = run(page)
    text = page.read_text("utf-8")
    assert len(blocks) == len(re.findall(r"^```python$", text, flags=re.MULTILINE)) > 5
    for said, printed in blocks:
        assert NUMBER.sub("#", said).split() == NUMBER.sub("#", printed).split()
        for before, now in zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True):
            assert float(now) == pytest.approx(float(before), rel=0.02, abs=0.02)
    named = set(re.findall(rf"\]\(({name}_\w+\.png)\)", text))
    assert named == {path.name for path in tmp_path.iterdir()}
    assert named == {path.name for path in COOKBOOK.glob(f"{name}_*.png")}
    assert max((COOKBOOK / picture).stat().st_size for picture in named) < 100_000
