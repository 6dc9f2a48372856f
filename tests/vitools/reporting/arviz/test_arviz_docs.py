"""docs/arviz.md runs, snippet by snippet."""

import re
import warnings
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[4] / "docs" / "arviz.md"


@pytest.mark.usefixtures("float32_by_default")
def test_the_page_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the file it stores goes there
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 9
    namespace: dict[str, object] = {"__name__": "arviz_page"}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", "\\s*ArviZ is undergoing a major", FutureWarning)
        warnings.filterwarnings(
            "ignore", "The inplace keyword"
        )  # ArviZ 0.2x under the newest pandas
        for i, block in enumerate(blocks):
            exec(compile(block, f"arviz.md, python block {i + 1}", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "cavi converged 0" in printed
    assert "features" in printed
    assert (tmp_path / "fit.nc").is_file()
