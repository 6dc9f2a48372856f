"""Runs the python blocks of a page in order and holds what they print against what the page shows below them."""

import contextlib
import io
import re
import warnings

import pytest
import torch

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<said>.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?")


def run(name: str, page: str) -> list[tuple[str, str]]:
    """What the page says each block prints, and what it does print."""
    namespace: dict[str, object] = {"__name__": "cookbook"}
    found = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        for i, block in enumerate(BLOCK.finditer(page)):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block["code"], f"{name}, python block {i + 1}", "exec"), namespace)
            found.append((block["said"] or "", printed.getvalue()))
    return found


def check(name: str, page: str, **tolerance: float) -> int:
    """Every number printed is the page's but for the last digits of another machine; how many blocks ran.

    Args:
        tolerance: ``rel`` and ``abs`` of ``pytest.approx``.
    """
    blocks = run(name, page)
    assert len(blocks) == len(re.findall(r"^```python$", page, flags=re.MULTILINE))
    for said, printed in blocks:
        assert NUMBER.sub("#", said).split() == NUMBER.sub("#", printed).split()
        for before, now in zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True):
            assert float(now) == pytest.approx(float(before), **tolerance)
    return len(blocks)
