"""The page of formulas: its examples run, and what it tells of terms and families is so."""

import re
import warnings
from pathlib import Path

import pytest
import torch

from vitools.formula import FAMILIES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formula.md"


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_the_examples_run_in_order(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    namespace: dict[str, object] = {"__name__": "page"}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(blocks):
            exec(compile(block, f"formula.md, python block {i + 1}", "exec"), namespace)
    printed = capsys.readouterr().out
    shown = re.search(r"^```\n(days .*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert shown[1] in printed


def test_its_table_has_every_family_and_link():
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*) \|", PAGE.read_text("utf-8"), re.MULTILINE
    )
    told = {
        name: set(links.split(", "))
        for names, links in rows
        for name in re.findall(r"`(\w+)`", names)
        if name in FAMILIES
    }
    assert told == {name: set(family.links) for name, family in FAMILIES.items()}
