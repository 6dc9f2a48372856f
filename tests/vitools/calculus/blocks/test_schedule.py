"""Which blocks are iterated before the others move, and that it pays."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi
from vitools.calculus import ConjugateModel
from vitools.errors import OptionError
from vitools.models import two_dice

DOCUMENTS = torch.arange(30).repeat_interleave(40)


def topics(words, documents=DOCUMENTS):
    with pyro.plate("topics", 4):
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((12,), 0.1).double()))
    with pyro.plate("documents", 30):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((4,), 0.1).double()))
    with pyro.plate("words", len(words)):
        z = pyro.sample("z", dist.Categorical(theta[documents]))
        pyro.sample("word", dist.Categorical(phi[z]), obs=words)


def ratings(y, users, items):
    """Two groupings of the rows: neither is more local than the other."""
    with pyro.plate("users", 5):
        u = pyro.sample("u", dist.Normal(torch.tensor(0.0).double(), 1.0))
    with pyro.plate("items", 4):
        v = pyro.sample("v", dist.Normal(torch.tensor(0.0).double(), 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(u[users] * v[items], torch.tensor(0.5).double()), obs=y)


def words():
    generator = torch.Generator().manual_seed(4)
    truth = torch.eye(4).repeat_interleave(3, 1) + 0.05
    mixed = torch.softmax(3 * torch.randn(30, 4, generator=generator), 1) @ truth
    return torch.multinomial(mixed[DOCUMENTS], 1, generator=generator)[:, 0]


def inner(model, *args, **options):
    return [block.title for block in ConjugateModel(model, args, **options).inner]


def test_topics_and_their_weights_settle_before_the_words_of_topics_move():
    assert inner(topics, words()) == ["z", "theta"]


def test_groups_of_one_document_each_are_local_too():
    assert inner(topics, torch.arange(30) % 12, torch.arange(30)) == ["z", "theta"]


def test_discrete_latents_alone_are_not_iterated():
    assert inner(two_dice.model, two_dice.simulate(num_rows=50, seed=0).rolls) == []


def test_two_groupings_of_the_rows_are_not_local():
    rows = torch.arange(20)
    y = torch.linspace(-1, 1, 20).double()
    assert inner(ratings, y, rows % 5, rows % 4) == []


def test_the_user_decides():
    assert inner(topics, words(), inner=()) == []
    assert inner(topics, words(), inner=["phi", "z"]) == ["z", "phi"]
    with pytest.raises(OptionError, match="inner: no latent site 'w'"):
        inner(topics, words(), inner=["w"])


def test_the_schedule_found_raises_the_bound():
    problem = Problem(topics, words())
    found = cavi(problem, restarts=3)
    plain = cavi(problem, restarts=3, inner=(), max_sweeps=1000)
    assert found.bound > plain.bound
    assert min(found.restart_bounds) > min(plain.restart_bounds)


def test_without_a_warm_up_the_bound_never_falls():
    fit = cavi(Problem(topics, words()), warmup_sweeps=0)
    pairs = zip(fit.history.elbo, fit.history.elbo[1:], strict=False)
    assert all(after >= before - 1e-9 * abs(before) for before, after in pairs)
