"""Lines about a run where standard error is no terminal: now and then, and the last of a long one."""

import math
import re

import pytest

from vitools.cli import progress


@pytest.mark.parametrize(
    ("every", "quick", "written"),
    [
        (math.inf, math.inf, []),
        (0.0, math.inf, ["step 1", "step 2"]),
        (math.inf, 0.0, ["step 2  ended after _ s"]),
        (0.0, 0.0, ["step 1", "step 2"]),  # the last one has been said
    ],
)
def test_lines_come_now_and_then_and_at_the_end_of_a_long_run(
    every, quick, written, monkeypatch, capsys
):
    monkeypatch.setattr(progress, "EVERY", every)
    monkeypatch.setattr(progress, "QUICK", quick)
    with progress.status_line("cavi", quiet=False) as say:
        say("step 1")
        say("step 2")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+ s$", "_ s", line) for line in lines] == written


def test_quiet_runs_say_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.status_line("cavi", quiet=True) as say:
        assert say is None
    assert capsys.readouterr().err == ""
