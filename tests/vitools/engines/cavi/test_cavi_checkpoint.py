"""Checkpoints of cavi(): a run that was ended gives the numbers of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, cavi, save
from vitools.engines import checkpoint as store
from vitools.errors import FileError, OptionError
from vitools.guides import AutoMeanField


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def mixture(y):
    with pyro.plate("components", 3):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
        tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3).double()))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)


def logistic(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(number(1.0)))
    u = pyro.sample("u", dist.Normal(number(0.0), scale))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + u), obs=y)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Y = normal(150) + torch.tensor([-2.0, 0.0, 2.5]).double().repeat(50)
X = normal(120, 3, seed=1)
CASES = {
    "one start": (mixture, (Y,), {}),
    "starts in one batch": (mixture, (Y,), {"restarts": 3, "tol": 1e-5}),
    "curved, free form": (logistic, (X, (X.sum(1) > 0).double()), {"nested": ()}),
    "minibatches": (mixture, (Y,), {"batch_rows": 60}),
}


@pytest.fixture
def always_due(monkeypatch):
    monkeypatch.setattr(store, "SECONDS", 0.0)
    monkeypatch.setattr(store, "SHARE", 1e9)


@pytest.mark.usefixtures("always_due")
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c == "minibatches" else c for c in CASES],
)
def test_a_run_that_was_cut_short_goes_on_to_the_same_numbers(case, tmp_path):
    model, data, options = CASES[case]
    problem, path = Problem(model, *data), tmp_path / "run.ckpt"
    whole = cavi(problem, **options)
    for sweeps in (3, 4, 11):
        first = cavi(problem, max_sweeps=sweeps, checkpoint=path, resume=True, **options)
        assert first.status is Status.STOPPED_AT_LIMIT
    for resumed in (
        cavi(problem, checkpoint=path, resume=True, **options),
        cavi(problem, checkpoint=path, resume=True, **options),  # it is at its end
    ):
        assert resumed.status is whole.status
        exact = {"rel": 0, "abs": 0} if model is mixture else {"rel": 1e-12}  # panels begin anew
        assert resumed.bound == pytest.approx(whole.bound, **exact)
        assert len(resumed.history) == len(whole.history)
        assert resumed.history.elbo == pytest.approx(whole.history.elbo, **exact)
        for name, mean in whole.mean().items():
            torch.testing.assert_close(resumed.mean()[name], mean, rtol=exact["rel"] * 100, atol=0)
        assert resumed.detail == whole.detail
        assert resumed.restart_bounds == pytest.approx(whole.restart_bounds, **exact)


@pytest.mark.usefixtures("always_due")
def test_starts_one_after_the_other_are_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["vitools.engines.cavi.batch"], "BATCH_BYTES", 1)
    problem, path = Problem(mixture, Y), tmp_path / "run.ckpt"
    whole = cavi(problem, restarts=3, tol=1e-4)
    seen = []

    def stop_in_the_second(report):
        seen.append(report.step)
        if report.step < max(seen):
            raise KeyboardInterrupt

    monkeypatch.setattr("vitools.engines.loop.REPORT_EVERY", 0.0)
    first = cavi(problem, restarts=3, tol=1e-4, checkpoint=path, progress=stop_in_the_second)
    assert first.status is Status.INTERRUPTED
    assert len(first.restart_bounds) == 2
    resumed = cavi(problem, restarts=3, tol=1e-4, checkpoint=path, resume=True)
    assert resumed.restart_bounds == whole.restart_bounds
    assert resumed.history.elbo == whole.history.elbo


@pytest.mark.usefixtures("always_due")
def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    problem, path = Problem(mixture, Y), tmp_path / "run.ckpt"
    cavi(problem, max_sweeps=9, checkpoint=path)
    for other, words in (
        ({"tol": 1e-3}, "its tol is 1e-08, here it is 0.001"),
        ({"seed": 1}, "its seed is 0, here it is 1"),
        ({"batch_rows": 60}, "its batch_rows is None, here it is 60"),
        ({"restarts": 2}, "its restarts is 1, here it is 2"),
    ):
        with pytest.raises(FileError, match=words):
            cavi(problem, checkpoint=path, resume=True, **other)
    with pytest.raises(FileError, match="its problem is"):
        cavi(Problem(mixture, Y + 1), checkpoint=path, resume=True)
    fit = cavi(problem, max_sweeps=3)
    save(fit, tmp_path / "fit.safetensors")
    with pytest.raises(FileError, match="a saved fit, not a checkpoint"):
        cavi(problem, checkpoint=tmp_path / "fit.safetensors", resume=True)
    with pytest.raises(OptionError, match="needs checkpoint="):
        cavi(problem, resume=True)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileError, match="not a whole safetensors file"):
        cavi(problem, checkpoint=path, resume=True)
    with pytest.raises(
        OptionError, match="checkpoint: not where sites are given values by a guide"
    ):
        cavi(problem, checkpoint=tmp_path / "other", guides={"mu": AutoMeanField})


RUN = """
import json, sys
import torch
sys.path.insert(0, sys.argv[4])
from test_cavi_checkpoint import CASES
from vitools import Problem, cavi
from vitools.engines import checkpoint

checkpoint.SECONDS, checkpoint.SHARE = 0.0, 1e9
model, data, options = CASES[sys.argv[3]]
path, out = sys.argv[1:3]
fit = cavi(Problem(model, *data), tol=1e-13, checkpoint=path or None, resume=bool(path), **options)
with open(out, "w") as file:
    json.dump([fit.status.name, fit.history.elbo, fit.mean()["mu"].tolist()], file)
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["starts in one batch", "minibatches"])
def test_killed_at_any_moment_the_run_goes_on_to_the_same_numbers(tmp_path, case):
    out, path = tmp_path / "out.json", tmp_path / "run.ckpt"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    here = os.path.dirname(__file__)

    def start(checkpoint):
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(checkpoint), str(out), case, here], env=environment
        )

    assert start("").wait(300) == 0
    expected = json.loads(out.read_text())
    out.unlink()
    moments, kills = random.Random(0), 0
    while kills < 2:
        process = start(path)
        before = path.stat().st_mtime_ns if path.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if path.exists() and path.stat().st_mtime_ns != before:
                break
        time.sleep(moments.uniform(0.0, 0.05))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == 2, "the run ended before it was killed"
    assert start(path).wait(300) == 0
    assert json.loads(out.read_text()) == expected
