"""Stick-breaking weights, as people write them: Beta updates (Blei and Jordan 2006)."""

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from conjugacy_checks import (
    assert_bound_matches_monte_carlo,
    assert_never_falls,
    assert_updates_are_optimal,
    fitted,
)
from pyro import sample

from vitools.calculus import ConjugateModel
from vitools.engines.cavi.outcome import distributions
from vitools.errors import NotConjugateError

_generator = torch.Generator().manual_seed(0)
N, T = 40, 5
Y = torch.randn(N, generator=_generator, dtype=torch.float64) + 4.0 * (torch.arange(N) % 2)


def padded(v):
    """Pyro's tutorial on Dirichlet process mixtures."""
    rest = (1 - v).cumprod(-1)
    return F.pad(v, (0, 1), value=1) * F.pad(rest, (1, 0), value=1)


def concatenated(v):
    return torch.cat([v, torch.ones(1)]) * torch.cat([torch.ones(1), torch.cumprod(1 - v, 0)])


def shifted(v):
    rest = torch.cumprod(1 - v, -1)
    return torch.cat([v[:1], v[1:] * rest[:-1], rest[-1:]])


def in_logarithms(v):
    first = torch.cat([v.log(), torch.zeros(1)])
    return (first + torch.cat([torch.zeros(1), torch.log1p(-v).cumsum(-1)])).exp()


def mixture(weights, probs="probs"):
    def model():
        alpha = sample("alpha", dist.Gamma(2.0, 1.0))
        with pyro.plate("sticks", T - 1):
            v = sample("v", dist.Beta(1.0, alpha))
        with pyro.plate("components", T):
            mean = sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("rows", N):
            z = sample("z", dist.Categorical(**{probs: weights(v)}))
            sample("y", dist.Normal(mean[z], 1.0), obs=Y)

    return model


FORMS = {
    "padded": mixture(padded),
    "concatenated": mixture(concatenated),
    "shifted": mixture(shifted),
    "logarithms": mixture(in_logarithms),
    "logits": mixture(lambda v: padded(v).log(), "logits"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_one_model(name):
    _, bounds = fitted(FORMS[name])
    _, expected = fitted(FORMS["padded"])
    assert_never_falls(bounds)
    assert bounds == pytest.approx(expected, rel=1e-12)


def test_bound_and_updates():
    conjugate, _ = fitted(FORMS["padded"])
    assert_updates_are_optimal(conjugate)
    assert_bound_matches_monte_carlo(conjugate, FORMS["padded"], ())


def test_updates_of_the_literature():
    """q(v_k) = Beta(1 + N_k, E α + Σ_{j>k} N_j); q(α) = Gamma(2 + T-1, 1 - Σ E log(1-v_k))."""
    conjugate, _ = fitted(FORMS["padded"])
    factors = distributions(conjugate)
    counts = factors["z"].probs.sum(0)
    conjugate.update(conjugate.block_of["v"])
    v = distributions(conjugate)["v"]
    torch.testing.assert_close(v.concentration1, 1 + counts[:-1])
    after = counts.flip(0).cumsum(0).flip(0)[1:]
    torch.testing.assert_close(v.concentration0, factors["alpha"].mean + after)
    conjugate.update(conjugate.block_of["alpha"])
    alpha = distributions(conjugate)["alpha"]
    a, b = v.concentration1, v.concentration0
    log_rest = torch.digamma(b) - torch.digamma(a + b)
    torch.testing.assert_close(alpha.concentration, torch.tensor(2.0 + T - 1))
    torch.testing.assert_close(alpha.rate, 1 - log_rest.sum())


def test_weights_of_groups():
    group = torch.arange(N) % 3

    def model():
        with pyro.plate("groups", 3):
            v = sample("v", dist.Beta(torch.ones(T - 1), 2.0).to_event(1))
        with pyro.plate("components", T):
            mean = sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("rows", N):
            z = sample("z", dist.Categorical(padded(v)[group]))
            sample("y", dist.Normal(mean[z], 1.0), obs=Y)

    conjugate, bounds = fitted(model)
    assert_never_falls(bounds)
    assert_bound_matches_monte_carlo(conjugate, model, ())


def test_the_other_concentration_may_be_a_latent():
    def model():
        b = sample("b", dist.Gamma(2.0, 1.0))
        p = sample("p", dist.Beta(b, 1.0))
        sample("y", dist.Binomial(7, p), obs=torch.tensor(5.0))

    conjugate, bounds = fitted(model)
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)
    assert_bound_matches_monte_carlo(conjugate, model, ())


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (lambda v: padded(v) * 0.9, "not known to sum to one"),
        (lambda v: F.pad((1 - v).cumprod(-1), (1, 0), value=1.0), "not known to sum to one"),
        (lambda v: padded(v) + 0.1, "the value of cumprod"),
        (lambda v: padded(v).sum(-1, keepdim=True), "the value of cumprod"),
    ],
)
def test_other_weights_are_refused(weights, words):
    with pytest.raises(NotConjugateError, match=words) as raised:
        ConjugateModel(mixture(weights))
    assert "'v'" in str(raised.value)


def test_a_product_as_a_location_is_refused():
    def model():
        w = sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        sample("y", dist.Normal(w.cumprod(0), 1.0).to_event(1), obs=Y[:3])

    with pytest.raises(NotConjugateError, match=r"'w'.*the value of cumprod"):
        ConjugateModel(model)
