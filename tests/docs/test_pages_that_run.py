"""Pages whose Python is run as a reader would run it: gallery, course, how-to, what one comes from."""

import re
import warnings
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).resolve().parents[2] / "docs"
CELL = re.compile(r"^```\{code-cell\}.*?\n(?:---\n.*?^---\n)?(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def pages(folder: str) -> list[Path]:
    return [path for path in sorted((DOCS / folder).glob("*.md")) if path.name != "index.md"]


def run(path: Path, blocks: list[str], **names: object) -> None:
    namespace: dict[str, object] = {"__name__": "__main__", **names}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing a major")
        for i, block in enumerate(blocks):
            exec(compile(block, f"{path.name}, block {i + 1}", "exec"), namespace)


@pytest.fixture
def pictures(monkeypatch, tmp_path):
    """matplotlib without a window, files in a folder of their own."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    yield
    pyplot.close("all")


def test_cells_are_found():
    assert CELL.findall("```{code-cell}\na\n```\n```{code-cell}\n---\ntags: [x]\n---\nb\n```") == [
        "a\n",
        "b\n",
    ]
    assert all(CELL.search(path.read_text("utf-8")) for path in pages("gallery") + pages("course"))
    assert all(BLOCK.search(path.read_text("utf-8")) for path in pages("coming_from"))


def test_a_page_of_the_gallery_says_its_level_topics_and_order():
    orders = []
    for path in pages("gallery"):
        head = path.read_text("utf-8").split("---")[1]
        about = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
        assert about["level"] in ("first steps", "practice", "advanced"), path.name
        assert about["topics"], path.name
        orders.append(int(about["order"]))
        assert "tags: [thumbnail]" in path.read_text("utf-8"), path.name
    assert sorted(orders) == list(range(1, len(orders) + 1))


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default", "pictures")
@pytest.mark.parametrize("path", pages("gallery") + pages("course"), ids=lambda path: path.stem)
def test_notebooks_run(path):
    run(path, CELL.findall(path.read_text("utf-8")))


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default", "pictures")
@pytest.mark.parametrize("path", pages("coming_from") + pages("how_to"), ids=lambda path: path.stem)
def test_python_of_a_page_runs(path):
    if path.stem == "scikit_learn":
        pytest.importorskip("sklearn")
    run(path, BLOCK.findall(path.read_text("utf-8")))
