"""Every conjugate model can be moved from several states at once, with the numbers of each alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_conjugate_models import CASES

from vitools.calculus import ConjugateModel
from vitools.calculus.blocks import levels
from vitools.engines.cavi.coordinate_ascent import CoordinateAscent, Schedule
from vitools.posterior import Status

SCHEDULE = Schedule(tol=0.0, max_sweeps=4, accelerate=True, inner_sweeps=None, warmup_sweeps=None)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_gives_what_its_runs_give_alone(name):
    function, args, options = CASES[name]

    def bounds(seeds):
        with torch.no_grad():
            ascent = CoordinateAscent(ConjugateModel(function, args, **options), seeds, SCHEDULE)
            ascent.run(None, 0.0)
            return [run.history.elbo for run in ascent.runs(Status.STOPPED_AT_LIMIT)]

    together, alone = bounds([0, 1]), bounds([0]) + bounds([1])
    assert together[0] == pytest.approx(alone[0], rel=1e-8)
    assert together[1] == pytest.approx(alone[1], rel=1e-8)


def curved(kind):
    """Models under curved functions: groups on a tree, a softmax, counts far from where q begins."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    group = torch.arange(40) % 6
    classes = torch.randint(3, (40,), generator=generator)
    counts = torch.poisson((4 + x[:, 0]).exp(), generator=generator)
    zeros = torch.zeros(2, dtype=torch.float64)

    def groups():
        w = pyro.sample("w", dist.Normal(zeros, 2.0).to_event(1))
        scale = pyro.sample("scale", dist.HalfNormal(torch.ones_like(x[0, 0])))
        with pyro.plate("groups", 6):
            u = pyro.sample("u", dist.Normal(0.0, scale))
        with pyro.plate("rows", 40):
            logits = x @ w + u[group]
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=(classes > 0).double())

    def softmax():
        w = pyro.sample("w", dist.Normal(torch.zeros(2, 3).double(), 2.0).to_event(2))
        with pyro.plate("rows", 40):
            pyro.sample("y", dist.Categorical(logits=x @ w), obs=classes)

    def rates():
        w = pyro.sample("w", dist.Normal(zeros, 3.0).to_event(1))
        level = pyro.sample("level", dist.Normal(zeros[0], 10.0))
        with pyro.plate("rows", 40):
            pyro.sample("y", dist.Poisson((level + x @ w).exp()), obs=counts)

    return {"groups": groups, "softmax": softmax, "rates": rates}[kind]


@pytest.mark.parametrize("kind", ["groups", "softmax", "rates"])
def test_curved_functions_too(kind, monkeypatch):
    monkeypatch.setattr(levels, "SMALLEST", 0)
    shortened, halve = [], CoordinateAscent._shortened

    def counted(self, *arguments):
        shortened.append(int(arguments[-1].sum()))
        return halve(self, *arguments)

    monkeypatch.setattr(CoordinateAscent, "_shortened", counted)

    def histories(seeds):
        with torch.no_grad():
            ascent = CoordinateAscent(ConjugateModel(curved(kind)), seeds, SCHEDULE)
            assert ascent.count == len(seeds)
            ascent.run(None, 0.0)
            return [run.history.elbo for run in ascent.runs(Status.STOPPED_AT_LIMIT)]

    together = histories([0, 1, 2])
    assert (kind == "rates") == bool(shortened)  # steps of some runs were halved
    for seed, history in enumerate(together):
        assert history == pytest.approx(histories([seed])[0], rel=1e-8)
