"""The recipes of docs/large_data.md: mapped files are not copied, a refilled shelf is unbiased."""

import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from vitools import Problem, svi
from vitools.models.vae import VAE, elbo_terms, load

# Python 3.12 and later warn of any fork beside other threads, which test runners have
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "large_data.md").read_text("utf-8")


@pytest.mark.parametrize("title", ["Tables of any size", "Rows that arrive", "Some rows at a time"])
def test_the_page_prints_what_it_says(tmp_path, monkeypatch, capsys, title):
    section = PAGE.split(f"## {title}")[1].split("\n## ")[0]
    blocks = re.findall(r"^```(?:python)?\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "part-0.csv").write_text("kind;height m\noak;21,5\nash;\nfir;30,25\n")
    (rows / "part-1.csv").write_text("kind;height m\nash;17,5\noak;18,0\n")
    monkeypatch.chdir(tmp_path)
    code, output = blocks
    exec(code, {"__name__": "page"})
    assert capsys.readouterr().out == output


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


@forks
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shelf_refilled_from_a_loader_gives_an_unbiased_bound(num_workers):
    n, m, b = 5000, 500, 50
    generator = torch.Generator().manual_seed(0)
    data = 3 + torch.randn(n, generator=generator, dtype=torch.float64)
    loader = DataLoader(
        TensorDataset(data),
        m,
        shuffle=True,
        generator=generator,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
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


class Noisy(Dataset):
    """Rows of a file, read one by one in a worker, each pixel flipped with probability 0.02."""

    def __init__(self, path):
        self.path, self.length = path, len(np.load(path, mmap_mode="r"))

    def __len__(self):
        return self.length

    def __getitem__(self, row):
        if get_worker_info() is None:
            raise RuntimeError("read outside a worker")
        image = torch.from_numpy(np.load(self.path, mmap_mode="r")[row].astype(np.float32))
        return row, (image - (torch.rand(64) < 0.02).float()).abs()


@pytest.mark.slow
@forks
@pytest.mark.usefixtures("float32_by_default")
def test_workers_read_and_augment_the_images_of_a_vae_the_same_way_each_time(tmp_path):
    path = tmp_path / "images.npy"
    data = load(seed=0)
    np.save(path, data.train.numpy().astype(np.uint8))

    def train(seed):
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(
            Noisy(path),
            200,
            shuffle=True,
            drop_last=True,
            generator=generator,
            num_workers=2,
            persistent_workers=True,
        )
        shelves = (shelf for _ in itertools.count() for shelf in loader)
        rows, images = next(shelves)
        seen, shelf = set(rows.tolist()), images.clone()

        def refill(step, bound):
            if step % 8 == 0:
                rows, images = next(shelves)
                seen.update(rows.tolist())
                shelf.copy_(images)

        vae = VAE(64, 2, hidden=(32,))
        fit = svi(
            Problem(vae.model, shelf, batch_size=50), vae.guide, max_steps=160, learning_rate=3e-3,
            callback=refill, compile=False,
        )  # fmt: skip
        return fit.history.elbo, seen, elbo_terms(vae, data.held_out).elbo.mean()

    bounds, seen, held_out = train(0)
    again, _, _ = train(0)
    other, _, _ = train(1)
    assert again == bounds
    assert other != bounds
    assert len(seen) > 0.95 * len(data.train)  # 20 shelves, of which 7 make a pass
    untrained = elbo_terms(VAE(64, 2, hidden=(32,)), data.held_out).elbo.mean()
    assert held_out - untrained > 10  # nats an image: the shelves were what was learnt from


IN_BATCHES = """
import sys
import pyro, torch
import pyro.distributions as dist
from vitools import Problem, cavi

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("RssAnon"))

n, d = 500_000, 20
rows = torch.from_file(sys.argv[1], shared=False, size=n * d, dtype=torch.float64).view(n, d)

def model(rows):
    w = pyro.sample("w", dist.Normal(torch.zeros(d - 1).double(), 1.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(torch.tensor(1.0).double(), 1.0))
    with pyro.plate("rows", len(rows)):
        pyro.sample("y", dist.Normal(rows[:, 1:] @ w, tau.rsqrt()), obs=rows[:, 0])

cavi(Problem(model, rows[:5000]), batch_rows=1000, max_sweeps=4)
before, most = anonymous(), 0.0

def watch(report):
    global most
    most = max(most, anonymous())

problem = Problem(model, rows)
stated = anonymous()
fit = cavi(problem, batch_rows=10_000, max_sweeps=4, progress=watch)
print(stated - before, max(most, anonymous()) - before, fit.bound)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_minibatches_of_a_mapped_file_never_hold_it(tmp_path):
    path = tmp_path / "rows.f64"
    generator = np.random.default_rng(0)
    with path.open("wb") as file:  # 80 MB
        for _ in range(50):
            file.write(generator.normal(size=(10_000, 20)).data)
    run = subprocess.run(
        [sys.executable, "-c", IN_BATCHES, str(path)], capture_output=True, text=True, check=True
    )
    stated, fitted, bound = map(float, run.stdout.split())
    assert stated < 40  # megabytes, of 80
    assert fitted < 50
    assert math.isfinite(bound)
