"""``vitools calibrate``: ranks over simulated data, printed, pictured, and gone on with."""

import dataclasses
import json

import pytest
import torch

from vitools.cli.methods import METHODS
from vitools.errors import NumericalError
from vitools.posterior import FactorisedPosterior, Status


def beta_fit(more_heads=0.0):
    """The coin's posterior, Beta(1 + heads, 1 + tails), or one that believes in more heads."""

    def fit(target, **_):
        heads = target.problem.observed["heads"].value
        q = torch.distributions.Beta(1 + heads.sum() + more_heads, 1 + (1 - heads).sum())
        return FactorisedPosterior(
            target.problem, {"p": q}, 0.0, engine="test", status=Status.CONVERGED
        )

    return fit


@pytest.fixture
def engine(monkeypatch):
    """``engine(function)`` puts a function behind the method cavi."""

    def replace(fit):
        monkeypatch.setitem(METHODS, "cavi", dataclasses.replace(METHODS["cavi"], fit=fit))

    return replace


CALIBRATE = ("calibrate", "coin", "--method", "cavi", "--data-sets")


def test_an_exact_engine_passes_and_a_biased_one_is_named(vitools, engine):
    engine(beta_fit())
    text = vitools(*CALIBRATE, 60).stdout
    assert text.startswith("coin, CAVI: calibration over 60 data sets")
    assert "location biased: 0 of 1" in text
    assert "fits: 60 converged" in text
    engine(beta_fit(more_heads=6.0))
    assert "location biased: 1 of 1: p (p = " in vitools(*CALIBRATE, 60).stdout


def test_an_interrupted_run_goes_on_and_the_ranks_are_pictured(vitools, engine, folder):
    engine(beta_fit())
    vitools(*CALIBRATE, 5, "--out", "ranks")
    store = folder / "ranks" / "calibration-cavi.jsonl"
    first = store.read_text()
    result = vitools(*CALIBRATE, 8, "--out", "ranks")
    assert store.read_text().startswith(first)
    assert len([json.loads(line) for line in store.read_text().splitlines()]) == 1 + 8
    assert (folder / "ranks" / "calibration-cavi.png").read_bytes().startswith(b"\x89PNG")
    assert result.stdout.endswith(
        "written to ranks: calibration-cavi.jsonl · calibration-cavi.png\n"
    )


def test_what_cannot_be_calibrated_is_refused(refused, engine):
    assert "no method 'cavy'" in refused("calibrate", "coin", "--method", "cavy")
    assert "comes with an encoder" in refused("calibrate", "vae", "--data-sets", 2)
    assert "would be ignored" in refused(*CALIBRATE, 2, "--guide", "m.py:guide")
    calls = []

    def fails(target, **_):
        calls.append(1)
        raise NumericalError("no luck")

    engine(fails)
    message = refused(*CALIBRATE, 2, code=1)
    assert "none of 2 fits by CAVI gave an answer" in message
    assert "no luck" in message
    assert len(calls) == 2


def interrupted_after(count, by_status):
    """An engine that is interrupted in its fit number ``count``, as Ctrl-C or as engines answer it."""
    fits = []
    exact = beta_fit()

    def fit(target, **_):
        fits.append(1)
        posterior = exact(target)
        if len(fits) == count + 1:
            if not by_status:
                raise KeyboardInterrupt
            posterior.status = Status.INTERRUPTED
        return posterior

    return fit


@pytest.mark.parametrize("by_status", [False, True])
def test_ctrl_c_keeps_the_data_sets_that_are_done(vitools, engine, folder, by_status):
    engine(interrupted_after(5, by_status))
    result = vitools(*CALIBRATE, 30, "--out", "ranks")
    assert result.exit_code == 130, result.output
    assert result.stdout.startswith("coin, CAVI: calibration over 5 data sets")
    assert "interrupted: 25 data sets are missing" in result.stdout
    assert result.stderr == (
        "vitools: interrupted after 5 of 30 data sets; the same command goes on from there.\n"
    )
    assert (folder / "ranks" / "calibration-cavi.png").exists()
    engine(beta_fit())
    assert vitools(*CALIBRATE, 8, "--out", "ranks").exit_code == 0
    lines = (folder / "ranks" / "calibration-cavi.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines[1:]] == list(range(8))


def test_ctrl_c_before_the_first_data_set_is_done_writes_no_ranks(refused, engine, folder):
    engine(interrupted_after(0, False))
    assert refused(*CALIBRATE, 30, code=130) == "interrupted; no file is left half-written."
    assert list(folder.iterdir()) == []
