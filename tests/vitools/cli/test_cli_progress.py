"""What is said of a run that takes long, where no terminal is there to update a line."""

import logging
import re
import subprocess
import sys

import pytest

from vitools import Problem, svi
from vitools.cli import progress
from vitools.cli.progress import progress_line, status_line
from vitools.engines.progress import Progress
from vitools.guides import AutoMeanField
from vitools.models import coin


@pytest.fixture
def clock(monkeypatch):
    """``clock[0]`` is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, seconds, step, **options):
    """A run of a line's owner that reports every ``step`` seconds."""
    with progress_line("SVI", options.get("quiet", False)) as show:
        for i in range(int(seconds / step)):
            clock[0] += step
            if show:
                show(Progress("svi", i, 10_000, -1.5, clock[0]))


def test_a_piped_run_says_how_it_goes_once_a_minute_and_at_its_end(clock, capsys):
    run(clock, 200, 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("SVI  step 119  bound -1.5  2 steps/s")
    assert lines[-1].startswith("SVI  step 399")
    assert lines[-1].endswith("ended after 3 min")


def test_a_quick_or_quiet_run_says_nothing(clock, capsys):
    run(clock, 9, 0.5)
    run(clock, 200, 0.5, quiet=True)
    assert capsys.readouterr().err == ""


def test_the_logger_is_told_where_it_is_on(clock, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="vitools"):
        run(clock, 200, 0.5)
        with status_line("CAVI", True) as say:
            clock[0] += 61
            say("CAVI: 3 of 9 data sets done")
    assert len(caplog.records) == 5
    assert {(r.name, r.levelname) for r in caplog.records} == {("vitools", "INFO")}
    assert caplog.messages[-1] == "CAVI: 3 of 9 data sets done"
    assert capsys.readouterr().err == ""


def test_an_engine_called_from_python_tells_the_logger_a_line_a_minute(clock, caplog, monkeypatch):
    """Nobody is told without a logger, nor where ``progress=False``; a function of one's own, alone."""
    times = iter(range(0, 10**6, 7))
    problem = Problem(coin.model, coin.simulate(20))
    options = {"max_steps": 200, "compile": False}
    svi(problem, AutoMeanField, **options)
    assert not caplog.records
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with caplog.at_level(logging.INFO, logger="vitools"):
        svi(problem, AutoMeanField, **options, progress=False)
        told = []
        svi(problem, AutoMeanField, **options, progress=told.append)
        assert told
        assert not caplog.records
        svi(problem, AutoMeanField, **options)
    assert caplog.messages
    assert all(re.match(r"svi  step \d+  bound -\d", line) for line in caplog.messages)
    assert len(caplog.messages) < len(told)


def test_the_last_line_is_said_where_an_error_ends_the_run(clock, capsys):
    def fail():
        with status_line("CAVI", False) as say:
            say("CAVI: 1 of 9 data sets done")
            clock[0] += 20
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert capsys.readouterr().err == "CAVI: 1 of 9 data sets done  ended after 20 s\n"


def test_python_m_vitools_is_the_command():
    command = [sys.executable, "-m", "vitools", "list"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    assert "two-dice" in done.stdout
    bad = subprocess.run([*command, "--nonsense"], capture_output=True, check=False)
    assert bad.returncode == 2
