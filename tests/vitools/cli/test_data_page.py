"""docs/data.md: what its commands print, and what its Python does."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text("utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def timeless(text):
    return re.sub(r"in [\d.]+ s\b", "in _ s", text)


@pytest.fixture
def trees(folder):
    """The page's own table and model."""
    (table,), (model, *_) = blocks("csv"), blocks("python")
    (folder / "trees.csv").write_text(table)
    (folder / "trees.py").write_text(model)
    return folder


@pytest.mark.parametrize("block", blocks("console"))
def test_a_command_prints_what_the_page_says(vitools, trees, block):
    command, _, expected = block.partition("\n")
    (trees / "fit.safetensors").write_text("mine")
    result = vitools(*shlex.split(command.removeprefix("$ vitools ")))
    assert timeless(result.stderr + result.stdout) == timeless(expected)
    assert result.exit_code == (2 if expected.startswith("vitools:") else 0)


@pytest.mark.usefixtures("float32_by_default")
def test_the_table_is_read_from_python(trees, capsys):
    _, code, _ = blocks("python")
    exec(code, {})
    (printed,) = re.findall(r"^prints\n\n```\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert capsys.readouterr().out == printed
