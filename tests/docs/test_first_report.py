"""The first page of a new user: its table, its model and its commands, in an empty folder."""

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vitools.cli.app import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "first_report.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    return found


@pytest.mark.slow
def test_the_page_leads_from_an_empty_folder_to_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("plants.csv").write_text(block("csv"), encoding="utf-8")
    Path("plants.py").write_text(block("python"), encoding="utf-8")
    printed = []
    for line in block("sh").splitlines():
        program, *words = line.split()
        assert program == "vitools"
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        printed.append(result.stdout)
    explained, fitted, compared = printed
    assert "3 of 3 latents" in explained
    assert "verdict: trust" in fitted
    assert "reference" in compared
    assert Path("report/index.html").exists()
    assert Path("fits/fit.safetensors").exists()
