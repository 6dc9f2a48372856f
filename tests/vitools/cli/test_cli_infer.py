"""``vitools fit`` without a method: the ladder, its table, its exit codes."""

import os

import pytest
import torch

from vitools import load
from vitools.cli import progress as progress_lines
from vitools.cli.arguments import DataFile
from vitools.cli.methods import METHODS, default_methods
from vitools.cli.target import open_target
from vitools.engines.progress import Progress
from vitools.errors import NotSupportedError
from vitools.inference.rungs import Rung
from vitools.models import coin
from vitools.posterior import FactorisedPosterior, Status


@pytest.fixture
def problem():
    return open_target("coin", DataFile(), 0).problem


def press_ctrl_c(*_, **__):
    raise KeyboardInterrupt


def test_it_fits_until_a_fit_is_trusted_and_says_what_was_tried(vitools, problem):
    result = vitools("fit", "coin", "--out", "fits")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith("exact fit of model 'coin'")
    assert "\ntried:\n  exact (" in result.stdout
    assert "kept: exact (1 tried): the judge says 'trust'" in result.stdout
    assert "\nverdict: trust: " in result.stdout
    assert sorted(os.listdir("fits")) == ["fit.safetensors", "posterior.nc"]
    assert load("fits/fit.safetensors", problem).ladder.chosen == "exact"


def test_a_method_that_is_named_is_that_method(vitools):
    result = vitools("fit", "coin", "--method", "cavi")
    assert result.exit_code == 0
    assert "\ntried:\n" not in result.stdout
    assert vitools("fit", "coin", "--method", "infer").stdout.count("\ntried:\n") == 1


def test_methods_and_help_tell_of_it(vitools):
    assert next(iter(METHODS)) == "infer"
    assert "until the judge trusts a fit" in vitools("methods").stdout
    words = " ".join(vitools("fit", "--help").stdout.replace("│", " ").split())
    assert "one after another until a fit is trusted" in words
    assert "infer" not in default_methods(open_target("coin", DataFile(), 0))


@pytest.fixture
def ladder(monkeypatch):
    """Replaces the rungs by functions of ``progress``, by label."""

    def put(**runs):
        made = [
            Rung(
                label, lambda known, *, seed, progress, run=run: run(known, progress), lambda _: ""
            )
            for label, run in runs.items()
        ]
        monkeypatch.setattr("vitools.inference.climb.RUNGS", tuple(made))

    return put


def refuse(known, progress):
    raise NotSupportedError("not this model")


def narrow(known, progress):
    """The posterior of twice the data: its sd is 0.7 of the right one, which is for use with care."""
    heads = float(coin.simulate(20, seed=0).sum())
    q = torch.distributions.Beta(*torch.tensor([2 + 2 * heads, 42 - 2 * heads]))
    return FactorisedPosterior(
        known.problem, {"p": q}, 0.0, engine="narrow", status=Status.CONVERGED
    )


def test_ctrl_c_keeps_the_best_so_far_and_ends_with_its_code(vitools, ladder):
    ladder(narrow=narrow, long=press_ctrl_c)
    result = vitools("fit", "coin", "--out", "fits")
    assert result.exit_code == 130
    assert "kept: narrow (2 tried): interrupted during long" in result.stdout
    assert "verdict: use with care: " in result.stdout
    assert " Next: " in result.stdout
    assert sorted(os.listdir("fits")) == ["fit.safetensors", "posterior.nc"]


def test_where_no_rung_gives_a_fit_all_reasons_are_said(refused, ladder):
    ladder(one=refuse, other=refuse)
    message = refused("fit", "coin")
    assert message.startswith("infer: no engine gave a fit")
    assert message.endswith("one: not this model; other: not this model.")


def test_time_that_is_over_is_no_interruption(vitools, ladder):
    def slow(known, progress):
        try:
            while True:
                progress(Progress("slow", 1, 10, 0.0, 1.0))
        except KeyboardInterrupt:
            fit = narrow(known, progress)
            fit.status = Status.INTERRUPTED
            return fit

    ladder(slow=slow, after=pytest.fail)
    result = vitools("fit", "coin", "--max-seconds", "0.001")
    assert result.exit_code == 1  # its status is no good one
    assert "the 0.001 seconds were over during slow" in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-seconds", "0"], "0.001"),
        (["--max-seconds", "soon"], "--max-seconds"),
        (
            ["--max-seconds", "9", "--method", "cavi"],
            "--max-seconds is for --method infer, not for CAVI.",
        ),
        (
            ["--max-seconds", "9", "--batch-rows", "100"],
            "--max-seconds is for --method infer, not for CAVI.",
        ),
    ],
)
def test_wrong_seconds_are_refused(vitools, options, words):
    result = vitools("fit", "coin", *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_reports_of_the_ladder_bear_the_rungs_names(monkeypatch, capsys):
    monkeypatch.setattr(progress_lines, "EVERY", 0.0)
    with progress_lines.progress_line("", quiet=False) as show:
        show(Progress("CAVI", 5, 10, -3.0, 1.0))
        show(Progress("SVI", 2, 10, -2.0, 1.0))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [["CAVI", "step 5"], ["SVI", "step 2"]]


def test_dice_are_compared_with_one_gaussian_over_all():
    """The table of ``make demo`` ends with a fit that is trusted, before the reference."""
    names = default_methods(open_target("two-dice", DataFile(), 0))
    assert names[-2:] == ["multivariate", "nuts"]
