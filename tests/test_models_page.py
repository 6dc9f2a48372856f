"""The page of models that ship: its examples run, and its table names what ships."""

import inspect
import re
import warnings
from pathlib import Path

import pytest
import torch

from vitools.models import SHIPPED

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_the_examples_run_in_order_and_draw_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    namespace: dict[str, object] = {"__name__": "page"}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(blocks):
            exec(compile(block, f"models.md, python block {i + 1}", "exec"), namespace)
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert drawn == {"difficulties", "clusters", "factors", "topics", "level", "transitions"}
    order = namespace["fit"].mean()["level"].argsort()
    right = order.argsort()[namespace["likeliest"]] == namespace["regimes"].state
    assert right.double().mean() > 0.95


def test_its_table_names_models_and_their_arguments():
    rows = re.findall(
        r"^\| (`.*?`) \| (.*?) \| .*? \| .*? \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert rows
    for names, arguments in rows:
        for name in re.findall(r"`(.*?)`", names):
            taken = inspect.signature(SHIPPED[name].build(0).model).parameters
            assert set(re.findall(r"`(.*?)`", arguments)) <= set(taken), name
