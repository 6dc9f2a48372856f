"""One fit, one verdict: whichever command prints it."""

import dataclasses

import pandas
import pytest

from vitools import svi
from vitools.cli.arguments import DataFile
from vitools.cli.methods import METHODS
from vitools.cli.target import open_target
from vitools.diagnostics import Grade, judge
from vitools.guides import AutoKumaraswamy
from vitools.posterior import Status


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_fit_and_compare_say_the_same_of_a_fit(vitools, monkeypatch, seed):
    def short(target, *, seed, **_):
        fit = svi(target.problem, AutoKumaraswamy, max_steps=40, seed=seed, compile=False)
        fit.status = Status.CONVERGED  # else the verdict would speak of the limit
        return fit

    method = dataclasses.replace(METHODS["kumaraswamy"], fit=short)
    monkeypatch.setitem(METHODS, "kumaraswamy", method)
    alone = vitools("fit", "coin", "--method", "kumaraswamy", "--seed", seed)
    vitools("compare", "coin", "--methods", "kumaraswamy", "--seed", seed, "--report", "out")
    row = pandas.read_csv("out/comparison.csv").iloc[0]
    words = " ".join(alone.stdout.partition("verdict: ")[2].split())
    assert words.startswith(f"{row['verdict']}: {row['reason'].rstrip('.')}.")
    assert "0." in row["reason"]  # a figure that other draws would have changed


@pytest.mark.slow
def test_the_reference_of_the_demo_is_worth_its_name():
    target = open_target("two-dice", DataFile(), 0)
    start = METHODS["cavi-joint"].run(target, seed=0, progress=None, start=None)
    reference = METHODS["nuts"].run(target, seed=0, progress=None, start=start)
    assert reference.status is Status.SAMPLED
    found = judge(reference)
    assert found.verdict.grade is Grade.TRUST
    for moments in found.moments.values():
        varies = moments.sd > 1e-6
        assert float((moments.mean_error / moments.sd)[varies].max()) < 0.04
