"""Runs that are killed or interrupted at random moments: what they leave is whole and can be gone on with."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import kills


@pytest.fixture
def prepared(monkeypatch):
    """The commands note their fits while a test runs."""
    from vitools.cli.methods import Method

    monkeypatch.setattr(Method, "run", Method.run)
    kills.prepare()


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default", "prepared")
def test_a_hundred_kills_and_interrupts_leave_nothing_amiss(tmp_path):
    rows = kills.trial(100, 1, tmp_path / "kills.jsonl")
    print(*rows, sep="\n")
    assert sum(row["kills"] for row in rows) == 100
    assert [row for row in rows if row["faults"]] == []
    of_svi = [row for row in rows if row["of"] == "svi"]
    assert all(row["ends"] == row["same numbers"] > 0 for row in of_svi)
    assert sum(row["after its checkpoint"] for row in of_svi) >= 25


def test_parts_add_up_to_the_kills_asked_for():
    for count in (7, 30, 100):
        parts = kills.parts(count, 0)
        assert len(set(parts)) == len(parts)
        assert sum(part[-1] for part in parts) == count
        assert sum(part[-1] for part in parts if part[0] == "svi") == count // 2


@pytest.mark.usefixtures("float32_by_default", "prepared")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_fit_ends_with_the_code_of_its_signal(tmp_path, number):
    """In a process of its own, interrupted once its fit is made: that is kept."""
    process = kills.start(lambda: kills.command(kills.COMMANDS["fit"]), tmp_path)
    while not (tmp_path / "finished.txt").exists() and not kills.is_over(process):
        time.sleep(0.001)
    time.sleep(0.02)  # the note is written while the method that made the fit still holds it
    os.kill(process, number)
    code = kills.end(process)
    assert code in (kills.CODES[number], 0), kills.said_in(tmp_path)  # 0: it was over just before
    assert kills.is_whole(tmp_path / "out" / "fit.safetensors")


def test_half_a_file_is_told(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1')
    assert not kills.is_whole(path)
    path.write_text('{"a": 1}')
    assert kills.is_whole(path)
