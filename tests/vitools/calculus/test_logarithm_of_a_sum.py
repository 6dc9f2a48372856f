"""Logarithms of sums: Poisson factorisation, topics without their indicators, added rates."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.special import digamma, gammaln, logsumexp

from vitools import Problem, cavi, explain
from vitools.calculus.model import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.errors import NotConjugateError, NumericalError

N, M, K = 12, 9, 3


def counts():
    g = torch.Generator().manual_seed(0)
    theta = 2 * torch.rand(N, K, generator=g) ** 3
    beta = 2 * torch.rand(K, M, generator=g) ** 3
    return torch.poisson(theta @ beta, generator=g).double()


def dense(y):
    with pyro.plate("k", K, dim=-1), pyro.plate("n", N, dim=-2):
        theta = pyro.sample("theta", dist.Gamma(0.5, 0.3))
    with pyro.plate("m", M, dim=-1), pyro.plate("l", K, dim=-2):
        beta = pyro.sample("beta", dist.Gamma(0.4, 0.6))
    pyro.sample("y", dist.Poisson(theta @ beta).to_event(2), obs=y)


def sparse(user, item, y):
    with pyro.plate("k", K, dim=-1):
        with pyro.plate("n", N, dim=-2):
            theta = pyro.sample("theta", dist.Gamma(0.5, 0.3))
        with pyro.plate("m", M, dim=-2):
            beta = pyro.sample("beta", dist.Gamma(0.4, 0.6))
    rate = (theta[user] * beta[item]).sum(-1)
    log_counts = (y * rate.log() - torch.lgamma(y + 1)).sum()
    pyro.factor("y", log_counts - (theta.sum(0) * beta.sum(0)).sum())


def long_format(y):
    user, item = y.nonzero(as_tuple=True)
    return user, item, y[user, item]


def swept(model, args, sweeps):
    """The model after some sweeps from a start, its start, and the bound of each sweep."""
    conjugate = ConjugateModel(model, args)
    initialise(conjugate, 0)
    start = {b.title: [x.numpy() for x in b.natural] for b in conjugate.blocks}
    bounds = []
    for _ in range(sweeps):
        conjugate.sweep()
        bounds.append(conjugate.elbo())
    return conjugate, start, np.array(bounds)


class Gammas:
    """One matrix of Gamma factors and its prior, in NumPy."""

    def __init__(self, shape, rate, prior):
        self.shape, self.rate, self.prior = shape, rate, prior

    @property
    def mean(self):
        return self.shape / self.rate

    @property
    def log(self):
        return digamma(self.shape) - np.log(self.rate)

    def prior_less_entropy(self):
        a, b = self.prior
        entropy = self.shape - np.log(self.rate) + gammaln(self.shape)
        entropy = entropy + (1 - self.shape) * digamma(self.shape)
        log_prior = a * math.log(b) - gammaln(a) + (a - 1) * self.log - b * self.mean
        return (log_prior + entropy).sum()


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_poisson_factorisation_by_hand(form):
    """The updates of Gopalan, Hofman and Blei (2015), with allocations φ [N, M, K] written out."""
    y = counts()
    model, args = (dense, (y,)) if form == "dense" else (sparse, long_format(y))
    conjugate, start, bounds = swept(model, args, 6)
    y = y.numpy()
    theta = Gammas(start["theta"][0] + 1, -start["theta"][1], (0.5, 0.3))
    beta = Gammas(start["beta"][0] + 1, -start["beta"][1], (0.4, 0.6))
    if form == "dense":
        beta.shape, beta.rate = beta.shape.T, beta.rate.T  # [M, K]

    def logs():
        return theta.log[:, None, :] + beta.log[None]

    def allotted():
        log_phi = logs() - logsumexp(logs(), -1, keepdims=True)
        return y[..., None] * np.exp(log_phi)

    expected = []
    for _ in range(6):  # children first
        beta.shape, beta.rate = 0.4 + allotted().sum(0), 0.6 + theta.mean.sum(0) + 0 * beta.rate
        theta.shape, theta.rate = 0.5 + allotted().sum(1), 0.3 + beta.mean.sum(0) + 0 * theta.rate
        fit = (y * logsumexp(logs(), -1) - theta.mean @ beta.mean.T - gammaln(y + 1)).sum()
        expected.append(fit + theta.prior_less_entropy() + beta.prior_less_entropy())
    np.testing.assert_allclose(bounds, expected, rtol=1e-12)
    found = next(b for b in conjugate.blocks if b.title == "theta").natural
    np.testing.assert_allclose(found[0] + 1, theta.shape, rtol=1e-10)
    np.testing.assert_allclose(-found[1], np.broadcast_to(theta.rate, (N, K)), rtol=1e-10)
    assert (np.diff(bounds) > 0).all()


def test_sparse_counts_are_dense_ones():
    y = counts()
    apart = [cavi(Problem(m, *a), seed=1) for m, a in ((dense, (y,)), (sparse, long_format(y)))]
    assert apart[0].bound == pytest.approx(apart[1].bound, rel=1e-9)
    torch.testing.assert_close(
        apart[0].marginal("theta").mean, apart[1].marginal("theta").mean, rtol=1e-3, atol=1e-4
    )


TOPICS, WORDS, DOCUMENTS = 3, 12, 6


def topics(document, word, *, is_summed):
    with pyro.plate("topics", TOPICS):
        beta = pyro.sample("beta", dist.Dirichlet(torch.full((WORDS,), 0.3)))
    with pyro.plate("documents", DOCUMENTS):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((TOPICS,), 0.5)))
    with pyro.plate("words", len(word)):
        if is_summed:
            pyro.sample("word", dist.Categorical(theta[document] @ beta), obs=word)
        else:
            z = pyro.sample("z", dist.Categorical(theta[document]))
            pyro.sample("word", dist.Categorical(beta[z]), obs=word)


def test_topics_summed_out_are_topics_by_word():
    g = torch.Generator().manual_seed(0)
    document = torch.randint(0, DOCUMENTS, (80,), generator=g)
    word = torch.randint(0, WORDS, (80,), generator=g)
    summed = ConjugateModel(
        lambda d, w: topics(d, w, is_summed=True), (document, word), collapse=False
    )
    by_word = ConjugateModel(
        lambda d, w: topics(d, w, is_summed=False), (document, word), collapse=False, stream=False
    )
    initialise(summed, 0)
    initialise(by_word, 0)
    for name in ("beta", "theta"):
        by_word.block_of[name].restore(summed.block_of[name].natural)
    z = by_word.block_of["z"]
    by_word.update(z)
    assert by_word.elbo() == pytest.approx(summed.elbo(), rel=1e-12)
    for _ in range(3):
        for name in ("theta", "beta"):  # with shares that are current before each
            for part in summed.order[: summed.order.index(summed.block_of[name])][-1:]:
                summed.update(part)
            summed.update(summed.block_of[name])
            for node in summed.order:
                if node in summed.allocations:
                    summed.update(node)
            by_word.update(by_word.block_of[name])
            by_word.update(z)
        assert by_word.elbo() == pytest.approx(summed.elbo(), rel=1e-12)


def rates(x, y):
    a = pyro.sample("a", dist.HalfNormal(2.0))
    b = pyro.sample("b", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(a + b * x + 0.1), obs=y)


def test_added_rates_against_quadrature():
    """A bound on the evidence by a grid, near it; means near the posterior's."""
    x = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0, 4.0])
    y = torch.tensor([1.0, 0.0, 3.0, 2.0, 6.0, 7.0])
    fit = cavi(Problem(rates, x, y))
    a, b = (torch.linspace(1e-4, 9.0, 1500)[:, None], torch.linspace(1e-4, 7.0, 1500)[None])
    log_p = dist.HalfNormal(2.0).log_prob(a) + dist.Gamma(2.0, 1.0).log_prob(b)
    for x_n, y_n in zip(x, y, strict=True):
        log_p = log_p + dist.Poisson(a + b * x_n + 0.1).log_prob(y_n)
    cell = math.log(9.0 / 1499 * 7.0 / 1499)
    evidence = float(log_p.logsumexp((0, 1))) + cell
    assert evidence - 1.0 < fit.bound < evidence
    weights = (log_p + cell - evidence).exp()
    for name, grid in (("a", a), ("b", b)):
        mean = float((weights * grid).sum())
        spread = float((weights * (grid - mean) ** 2).sum()) ** 0.5
        assert abs(float(fit.marginal(name).mean) - mean) < 0.5 * spread


@pytest.mark.slow
def test_gradient_at_the_answer_is_zero():
    """No other member of the families of q has a higher bound: its slope is zero in every direction."""
    conjugate, _, bounds = swept(dense, (counts(),), 4000)
    assert bounds[-1] - bounds[-2] < 1e-9
    g = torch.Generator().manual_seed(0)
    for block in conjugate.blocks:
        natural = block.natural
        for _ in range(3):
            ways = [
                0.01 * torch.randn(x.shape, generator=g).double() * (x - i + 1).abs()
                for i, x in enumerate(natural)
            ]
            found = []
            for sign in (1, -1):
                block.restore(tuple(x + sign * d for x, d in zip(natural, ways, strict=True)))
                for node in conjugate.order:
                    if node in conjugate.allocations:
                        conjugate.update(node)
                found.append(conjugate.elbo())
            assert max(found) < bounds[-1]
            assert abs(found[0] - found[1]) < 0.1 * (bounds[-1] - min(found))
        block.restore(natural)


def may_be_negative(x, y):
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Gamma(2.0, 1.0))
    d = pyro.sample("d", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(a + b * x + d * x**2), obs=y)


def lowered(x, y):
    a = pyro.sample("a", dist.Gamma(2.0, 1.0))
    b = pyro.sample("b", dist.Gamma(2.0, 1.0))
    d = pyro.sample("d", dist.Gamma(2.0, 1.0))
    pyro.factor("y", -(y * (a + b * x + d * x**2).log()).sum() / 5)


def weighted_by_a_latent(x, y):
    a = pyro.sample("a", dist.Gamma(2.0, 1.0))
    b = pyro.sample("b", dist.Gamma(2.0, 1.0))
    c = pyro.sample("c", dist.Beta(2.0, 1.0))
    d = pyro.sample("d", dist.Gamma(2.0, 1.0))
    pyro.factor("y", (c * y * (a + b * x + d * x**2).log()).sum() - 9 * (a + b + d))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (may_be_negative, "'a' may be negative"),
        (lowered, "negative coefficient, where allocations would be no lower bound"),
        (weighted_by_a_latent, "beside another latent"),
    ],
)
def test_refusals(model, said):
    with pytest.raises(NotConjugateError, match=said):
        cavi(Problem(model, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])))


def vanishing(y):
    with pyro.plate("k", 2):
        a = pyro.sample("a", dist.Gamma(1e-4, 1.0))
        b = pyro.sample("b", dist.Gamma(1e-4, 1.0))
    pyro.factor("y", 1e-9 * y * (a * b).sum().log() - (a * b).sum())


def test_parts_that_vanish_are_told():
    with pytest.raises(NumericalError, match="all of its parts are zero"):
        cavi(Problem(vanishing, torch.tensor(1.0)))


def test_explain():
    said = explain(Problem(dense, counts()))
    assert "Gamma(0.5 + allotted[theta], 0.3 + E[beta])" in said
    assert "a further bound" in said
    assert "not kept" in said
