"""docs/chains.md runs, snippet by snippet."""

import re
import warnings
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[3] / "docs" / "chains.md"


@pytest.mark.slow
def test_the_page_runs_in_order(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    namespace: dict[str, object] = {"__name__": "chains_page"}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(blocks):
            exec(compile(block, f"chains.md, python block {i + 1}", "exec"), namespace)
    assert "a Markov chain of 1000 steps of 1), then slope dense" in capsys.readouterr().out
