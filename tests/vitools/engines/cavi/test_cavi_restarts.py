"""Restarts run as one batch give what each of them gives alone, and the posterior reports them all."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, load, save
from vitools.engines.cavi import batch
from vitools.errors import NumericalError
from vitools.models import two_dice

ROLLS = two_dice.simulate(60, 4, sides1=2, sides2=3, faces=4, seed=1).rolls


def mixture(y):
    with pyro.plate("components", 3):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2).double(), 5.0).to_event(1))
        tau = pyro.sample("tau", dist.Gamma(torch.ones(2).double(), 1.0).to_event(1))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3).double()))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mean[z], tau[z].rsqrt()).to_event(1), obs=y)


def topics(words, documents):
    with pyro.plate("topics", 3):
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((6,), 0.1).double()))
    with pyro.plate("documents", 20):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((3,), 0.1).double()))
    with pyro.plate("words", len(words)):
        z = pyro.sample("z", dist.Categorical(theta[documents]))
        pyro.sample("word", dist.Categorical(phi[z]), obs=words)


def factors(y):
    with pyro.plate("factors", 2, dim=-1):
        alpha = pyro.sample("alpha", dist.Gamma(torch.tensor(1.0).double(), 1.0))
        with pyro.plate("rows", 4, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.tensor(0.0).double(), alpha.rsqrt()))
        with pyro.plate("columns", 5, dim=-2):
            x = pyro.sample("x", dist.Normal(torch.tensor(0.0).double(), 1.0))
    with pyro.plate("rows_of_y", 4, dim=-2), pyro.plate("columns_of_y", 5, dim=-1):
        pyro.sample("y", dist.Normal(w @ x.T, torch.tensor(0.3).double()), obs=y)


def problem(name):
    generator = torch.Generator().manual_seed(3)
    if name == "two dice":
        return Problem(two_dice.model, ROLLS, 2, 3, 4)
    if name == "mixture":
        picked = torch.randint(3, (150,), generator=generator)
        centres = torch.tensor([[0.0, 0], [2, 2], [-2, 3]]).double()
        noise = torch.randn(150, 2, generator=generator, dtype=torch.float64)
        return Problem(mixture, centres[picked] + noise)
    if name == "factors":
        return Problem(factors, torch.randn(4, 5, generator=generator, dtype=torch.float64))
    documents = torch.arange(20).repeat_interleave(15)
    words = torch.randint(3, (300,), generator=generator) + 2 * (documents % 2)
    return Problem(topics, words, documents)


CASES_AND_OPTIONS = [
    ("two dice", {}),
    ("two dice", {"joint": [("z1", "z2")]}),
    ("mixture", {}),
    ("topics", {}),
    ("topics", {"inner": ["z", "theta"], "inner_sweeps": 3, "warmup_sweeps": 2}),
    pytest.param("factors", {}, marks=pytest.mark.slow),
    ("factors", {"factorised": ["w", "x"]}),
]


@pytest.mark.parametrize(("name", "options"), CASES_AND_OPTIONS)
def test_a_batch_gives_what_its_runs_give_alone(name, options):
    these = problem(name)
    together = cavi(these, restarts=3, seed=5, tol=1e-5, **options)
    alone = [cavi(these, seed=5 + run, tol=1e-5, **options) for run in range(3)]
    assert together.restart_bounds == pytest.approx([fit.bound for fit in alone], rel=1e-8)
    best = max(alone, key=lambda fit: fit.bound)
    assert together.bound == pytest.approx(best.bound, rel=1e-8)


@pytest.mark.parametrize(("name", "options"), CASES_AND_OPTIONS)
def test_plain_sweeps_of_a_batch_follow_those_of_its_runs(name, options):
    these = problem(name)
    plain = {**options, "accelerate": False, "tol": 0.0, "max_sweeps": 12}
    together = cavi(these, restarts=3, **plain)
    alone = [cavi(these, seed=run, **plain) for run in range(3)]
    best = max(alone, key=lambda fit: fit.bound)
    assert together.history.elbo == pytest.approx(best.history.elbo, rel=1e-10)
    for site in these.continuous:
        torch.testing.assert_close(together.mean()[site], best.mean()[site], rtol=1e-7, atol=1e-9)


def test_little_memory_runs_them_one_after_another(monkeypatch):
    these = problem("two dice")
    together = cavi(these, restarts=4)
    monkeypatch.setattr(batch, "BATCH_BYTES", 1)
    apart = cavi(these, restarts=4)
    assert apart.restart_bounds == pytest.approx(together.restart_bounds, rel=1e-8)
    assert apart.detail == together.detail


def test_all_starts_are_reported_and_saved(tmp_path):
    these = problem("two dice")
    fit = cavi(these, restarts=6)
    low, high = min(fit.restart_bounds), max(fit.restart_bounds)
    close = sum(bound >= high - 0.1 for bound in fit.restart_bounds)
    words = f"best of 6 starts (bounds {low:.1f} to {high:.1f}, {close} within 0.1 of the best)"
    assert words in fit.detail
    assert words in " ".join(str(fit).split())
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", these)
    assert again.restart_bounds == fit.restart_bounds


def test_a_single_start_says_nothing_of_starts():
    fit = cavi(problem("two dice"), max_sweeps=5)
    assert fit.restart_bounds == [fit.bound]
    assert "starts" not in fit.detail


def test_an_improper_update_is_named():
    def model(y):
        scale = pyro.sample("scale", dist.Gamma(torch.tensor(1.0).double(), 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Gamma(torch.tensor(2.0).double(), scale), obs=y)

    these = Problem(model, torch.ones(3).double())
    these.args = (torch.full((3,), -1.0).double(),)  # past the checks of the data
    with pytest.raises(NumericalError, match="'scale'"):
        cavi(these, restarts=2)


def test_most_starts_of_a_clear_mixture_find_all_clusters():
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    picked = torch.arange(300) % 3
    y = centres[picked] + 0.3 * torch.randn(300, 2, generator=generator, dtype=torch.float64)
    fit = cavi(Problem(mixture, y), restarts=10)
    found = [bound >= fit.bound - 1e-3 for bound in fit.restart_bounds]
    assert sum(found) >= 8
    nearest = torch.cdist(centres, fit.mean()["mean"]).min(1).values
    assert float(nearest.max()) < 0.1
