"""The recipes of docs/large_data.md: mapped files are not copied, a refilled shelf is unbiased."""

import itertools
import math
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, svi

MAPPED = """
import sys
import pyro, torch
import pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal
from vitools import Problem, svi

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("RssAnon"))

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

n, d = 1_000_000, 100
rows = torch.from_file(sys.argv[1], shared=True, size=n * d, dtype=torch.float32).view(n, d)

def model(rows):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(d), 1.0).to_event(1))
    with pyro.plate("rows", len(rows), subsample_size=100) as index:
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=rows[index])

before = anonymous(), peak()
problem = Problem(model, rows[:1000])
svi(problem, AutoNormal, max_steps=8, compile=False)
small = anonymous(), peak()
problem = Problem(model, rows)
stated = peak()
fit = svi(problem, AutoNormal, max_steps=40, compile=sys.argv[2] == "compiled")
print(anonymous() - small[0], stated - small[1], fit.history.elbo[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["uncompiled", "compiled"])
def test_a_mapped_file_is_never_copied(tmp_path, how):
    path = tmp_path / "rows.f32"
    with path.open("wb") as file:
        file.truncate(4 * 100_000_000)  # 400 MB of zeros that take no room on disk
    run = subprocess.run(
        [sys.executable, "-c", MAPPED, str(path), how], capture_output=True, text=True, check=True
    )
    kept, stated, bound = map(float, run.stdout.split())
    assert kept < 100  # megabytes, of which 400 would be a copy and 100 one byte for each number
    assert stated < 100
    assert math.isfinite(bound)


def test_a_shelf_refilled_from_a_loader_gives_an_unbiased_bound():
    n, m, b = 5000, 500, 50
    generator = torch.Generator().manual_seed(0)
    data = 3 + torch.randn(n, generator=generator, dtype=torch.float64)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data), m, shuffle=True, generator=generator, drop_last=True
    )
    shelves = (shelf for _ in itertools.count() for (shelf,) in loader)
    shelf = next(shelves).clone()
    refills = []

    def model(shelf):
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", n, subsample=torch.randperm(m)[:b]) as index:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=shelf[index])

    def guide(shelf):
        loc = pyro.param("loc", torch.tensor(2.5, dtype=torch.float64))
        pyro.sample("mean", dist.Normal(loc, 1e-6))

    def refill(step, bound):
        if step % 8 == 0:
            shelf.copy_(next(shelves))
            refills.append(step)

    # the guide stands still: all that moves the bound is the choice of rows
    fit = svi(
        Problem(model, shelf), guide, max_steps=400, learning_rate=1e-12, callback=refill,
        compile=False,
    )  # fmt: skip
    at = torch.tensor(2.5, dtype=torch.float64)
    exact = dist.Normal(at, 1.0).log_prob(data).sum() + dist.Normal(0.0, 10.0).log_prob(at)
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(1e-6)
    bounds = torch.tensor(fit.history.elbo, dtype=torch.float64)
    whole = bounds.reshape(-1, 8).mean(1)  # of a shelf each
    error = float(whole.std() / math.sqrt(len(whole)))
    assert len(refills) == 50
    assert abs(float(bounds.mean() - exact) - entropy) < 4 * error
    assert error < 0.01 * abs(float(exact))
