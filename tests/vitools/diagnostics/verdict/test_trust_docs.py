"""docs/trust.md and docs/existing_fits.md run, snippet by snippet."""

import re
import warnings
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[4] / "docs" / "trust.md"
EXISTING = PAGE.with_name("existing_fits.md")


@pytest.mark.slow
def test_the_page_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the files it stores go there
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 11
    namespace: dict[str, object] = {"__name__": "trust_page"}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(blocks):
            exec(compile(block, f"trust.md, python block {i + 1}", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "calibration over 30 data sets" in printed
    assert "CAVI" in printed
    assert "tried:" in printed
    assert (tmp_path / "ranks.png").is_file()
    bounds = namespace["found"]
    assert bounds.lower[1].value < bounds.lower[1000].value < bounds.upper.value


@pytest.mark.slow
def test_the_page_on_existing_fits_runs_in_order(capsys):
    text = EXISTING.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    namespace: dict[str, object] = {"__name__": "existing_page"}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(blocks):
            exec(compile(block, f"existing_fits.md, python block {i + 1}", "exec"), namespace)
    assert len(blocks) == 5
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("mine", "theirs", "Laplace"))
    import pyro

    pyro.clear_param_store()
