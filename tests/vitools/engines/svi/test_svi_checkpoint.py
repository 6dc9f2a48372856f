"""Checkpoints of svi(): a run that was ended gives the numbers of one that was not."""

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
from pyro.infer.autoguide import AutoNormal
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vitools import Problem, Status, save, svi
from vitools.errors import FileError, OptionError
from vitools.guides import AutoMeanField
from vitools.models import coin


def gaussian_model(y):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean.sum(), 1.0), obs=y)


@pytest.fixture
def problem():
    return Problem(gaussian_model, torch.linspace(-1.0, 2.0, 30))


def stop_at(step):
    def callback(done, bound):
        if done >= step:
            raise KeyboardInterrupt

    return callback


OPTIMIZERS = {
    "default": None,
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.99)),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
}


@pytest.mark.parametrize(
    "optimizer",
    ["default", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adam", "momentum"))],
)
def test_an_interrupted_run_goes_on_to_the_same_numbers(problem, tmp_path, optimizer):
    options = {"max_steps": 1500, "seed": 4, "optimizer": OPTIMIZERS[optimizer]}
    whole = svi(problem, AutoNormal, **options)
    path = tmp_path / "run.ckpt"
    first = svi(problem, AutoNormal, callback=stop_at(1000), checkpoint=path, **options)
    assert first.status is Status.INTERRUPTED
    assert len(first.history) == 1000
    second = svi(problem, AutoNormal, checkpoint=path, resume=True, **options)
    assert second.history.elbo == whole.history.elbo
    assert second.history.seconds == sorted(second.history.seconds)
    assert second.status is whole.status
    for name, value in whole.params["params"].items():
        assert torch.equal(value, second.params["params"][name])


def test_a_finished_run_is_returned_as_it_was(problem, tmp_path):
    path = tmp_path / "run.ckpt"
    whole = svi(problem, AutoNormal, checkpoint=path)
    again = svi(problem, AutoNormal, checkpoint=path, resume=True)
    assert whole.status is again.status is Status.CONVERGED
    assert again.history.elbo == whole.history.elbo
    assert torch.equal(again.mean()["mean"], whole.mean()["mean"])


def test_a_limit_can_be_raised_afterwards(problem, tmp_path):
    path = tmp_path / "run.ckpt"
    whole = svi(problem, AutoNormal, max_steps=310, seed=1)
    svi(problem, AutoNormal, max_steps=101, seed=1, checkpoint=path)  # ends inside a block
    longer = svi(problem, AutoNormal, max_steps=310, seed=1, checkpoint=path, resume=True)
    assert longer.history.elbo == whole.history.elbo


def test_without_a_file_a_resumed_run_begins(problem, tmp_path):
    path = tmp_path / "new" / "run.ckpt"
    fit = svi(problem, AutoNormal, max_steps=20, checkpoint=path, resume=True)
    assert len(fit.history) == 20
    assert path.exists()


def test_a_torn_checkpoint_is_refused(problem, tmp_path):
    path = tmp_path / "run.ckpt"
    svi(problem, AutoNormal, max_steps=20, checkpoint=path)
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError, match="not a whole safetensors file"):
            svi(problem, AutoNormal, max_steps=20, checkpoint=path, resume=True)


def test_a_changed_checkpoint_is_refused(problem, tmp_path):
    path = tmp_path / "run.ckpt"
    svi(problem, AutoNormal, max_steps=20, checkpoint=path)
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["ascent/theta"] += 1e-12
    save_file(tensors, path, metadata)
    with pytest.raises(FileError, match="do not match their digest"):
        svi(problem, AutoNormal, max_steps=20, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "its seed is 0, here it is 1"),
        ({"num_particles": 2}, "its objective is ELBO by 1"),
        ({"clip_norm": 3.0}, "its clip_norm is None, here it is 3.0"),
        ({"compile": False}, "its compile is auto"),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}, "its optimizer is Adam"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(problem, tmp_path, change, words):
    path = tmp_path / "run.ckpt"
    svi(problem, AutoNormal, max_steps=20, checkpoint=path)
    with pytest.raises(FileError, match=words):
        svi(problem, AutoNormal, max_steps=20, checkpoint=path, resume=True, **change)


def test_a_checkpoint_of_other_data_or_guide_is_refused(problem, tmp_path):
    path = tmp_path / "run.ckpt"
    svi(problem, AutoNormal, max_steps=20, checkpoint=path)
    other = Problem(gaussian_model, torch.linspace(-1.0, 3.0, 30))
    with pytest.raises(FileError, match="its problem is 'gaussian_model' with data"):
        svi(other, AutoNormal, max_steps=20, checkpoint=path, resume=True)
    with pytest.raises(FileError, match="its guide is"):
        svi(
            problem,
            pyro.infer.autoguide.AutoDiagonalNormal,
            max_steps=20,
            checkpoint=path,
            resume=True,
        )


def test_a_checkpoint_of_another_start_is_refused(problem, tmp_path):
    path = tmp_path / "run.ckpt"
    one, other = (svi(problem, AutoMeanField, max_steps=n, compile=False) for n in (8, 12))
    options = {"max_steps": 20, "compile": False, "checkpoint": path}
    svi(problem, AutoMeanField, start=one, **options)
    resumed = svi(problem, AutoMeanField, start=one, resume=True, **options)
    assert len(resumed.history) == 20
    for start, words in ((other, "a fit by svi"), ("search", "search"), (None, "None")):
        with pytest.raises(
            FileError, match=rf"its start is a fit by svi \(\w+\), here it is {words}"
        ):
            svi(problem, AutoMeanField, start=start, resume=True, **options)
    svi(problem, AutoMeanField, start="guide", **options)
    with pytest.raises(FileError, match="its start is guide, here it is search"):
        svi(problem, AutoMeanField, start="search", resume=True, **options)


def test_a_fit_is_no_checkpoint(tmp_path):
    problem = Problem(coin.model, torch.tensor([1.0, 0.0]))
    path = tmp_path / "fit.safetensors"
    save(svi(problem, AutoNormal, max_steps=20), path)
    with pytest.raises(FileError, match="a saved fit, not a checkpoint"):
        svi(problem, AutoNormal, max_steps=20, checkpoint=path, resume=True)


def test_resuming_needs_a_file(problem):
    with pytest.raises(OptionError, match="needs checkpoint="):
        svi(problem, AutoNormal, resume=True)


RUN = """
import json, sys
import pyro, torch
import pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal
from vitools import Problem, svi
from vitools.engines import checkpoint

checkpoint.SECONDS, checkpoint.SHARE = 0.0, 0.5

def model(y):
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", 200, subsample_size=20) as index:
        pyro.sample("y", dist.Normal(0.0, scale), obs=y[index])

path, out = sys.argv[1:]
fit = svi(Problem(model, torch.linspace(-3.0, 3.0, 200)), AutoNormal, max_steps=12000, seed=7,
          learning_rate=0.001, checkpoint=path or None, resume=bool(path))
with open(out, "w") as file:
    json.dump([fit.status.name, fit.history.elbo, fit.mean()["scale"].item()], file)
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_run_goes_on_to_the_same_numbers(tmp_path):
    out, path = tmp_path / "out.json", tmp_path / "run.ckpt"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(checkpoint):
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(checkpoint), str(out)], env=environment
        )

    assert start("").wait(300) == 0
    expected = json.loads(out.read_text())
    out.unlink()
    moments, kills = random.Random(0), 0
    while kills < 5:
        process = start(path)
        before = path.stat().st_mtime_ns if path.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if path.exists() and path.stat().st_mtime_ns != before:
                break
        time.sleep(moments.uniform(0.0, 0.03))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == 5, "the run ended before it was killed often enough"
    assert start(path).wait(300) == 0
    assert json.loads(out.read_text()) == expected
