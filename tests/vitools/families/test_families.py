"""Every family: moments are gradients of the log-normaliser, entropy and KL agree with torch."""

import pytest
import torch
from pyro.distributions import InverseGamma
from torch.distributions import (
    Beta,
    Categorical,
    Dirichlet,
    Gamma,
    MultivariateNormal,
    Normal,
    Wishart,
    kl_divergence,
)

from vitools.families import FAMILIES, members


def double(x):
    return torch.tensor(x, dtype=torch.float64)


MATRIX = double([[2.0, 0.3], [0.3, 1.0]])
EXAMPLES = {
    "Normal": (Normal(double([0.3, -1.0]), double([0.7, 2.0])), Normal(double([0.0, 1.0]), 1.5)),
    "MultivariateNormal": (
        MultivariateNormal(double([0.3, -1.0]), MATRIX),
        MultivariateNormal(double([0.0, 1.0]), torch.eye(2).double() * 2),
    ),
    "Gamma": (Gamma(double([0.5, 3.0]), double([2.0, 0.1])), Gamma(double([1.0, 1.0]), 1.0)),
    "InverseGamma": (InverseGamma(double([2.5, 3.0]), double([2.0, 0.1])), InverseGamma(double([2.0, 4.0]), double(1.0))),
    "Beta": (Beta(double([0.5, 3.0]), double([2.0, 0.1])), Beta(double([1.0, 1.0]), double(2.0))),
    "Dirichlet": (Dirichlet(double([[0.5, 3.0, 1.0]])), Dirichlet(double([[1.0, 1.0, 2.0]]))),
    "Categorical": (Categorical(logits=double([0.5, 3.0, 1.0])), Categorical(logits=double([0.0, 1.0, 0.0]))),
    "Wishart": (Wishart(double(4.5), MATRIX), Wishart(double(3.5), torch.eye(2).double())),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_mean_parameters_are_the_gradient_of_the_log_normaliser(name):
    family = FAMILIES[name]
    natural = tuple(e.clone().requires_grad_() for e in family.from_distribution(EXAMPLES[name][0]))
    gradients = torch.autograd.grad(family.log_normaliser(natural).sum(), natural)
    for gradient, mean in zip(gradients, family.mean_parameters(natural), strict=True):
        assert torch.allclose(gradient, mean, rtol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_distribution_and_back(name):
    family = FAMILIES[name]
    natural = family.from_distribution(EXAMPLES[name][0])
    again = family.from_distribution(family.to_distribution(natural))
    assert all(torch.allclose(a, b) for a, b in zip(natural, again, strict=True))
    assert bool(family.proper(natural).all())


@pytest.mark.parametrize(
    ("name", "natural"),
    [
        ("Normal", (0.0, 0.5)),
        ("Gamma", (-1.5, -1.0)),
        ("Gamma", (0.0, 1.0)),
        ("InverseGamma", (0.0, -1.0)),
        ("Beta", (-1.5, 1.0)),
        ("Dirichlet", ([0.0, -1.5],)),
        ("Categorical", ([0.0, float("nan")],)),
        ("MultivariateNormal", ([0.0, 0.0], [[-1.0, 2.0], [2.0, -1.0]])),
        ("Wishart", (-1.5, [[-1.0, 0.0], [0.0, -1.0]])),
    ],
)
def test_parameters_outside_the_family_are_told(name, natural):
    family, parameters = FAMILIES[name], tuple(double(e) for e in natural)
    assert not bool(family.proper(parameters).any())
    assert bool(family.normalised(parameters)[0].isnan().all())


@pytest.mark.parametrize("name", FAMILIES)
def test_both_at_once(name):
    """The log-normaliser and its gradient together, also for parts known beforehand."""
    family = FAMILIES[name]
    natural = family.from_distribution(EXAMPLES[name][0])
    quadratic = natural[-1] if name == "MultivariateNormal" else None
    shared = [None] * (len(natural) - 1) + [quadratic]
    for both in (family.normalised(natural), family.normalised_with(shared)(natural)):
        torch.testing.assert_close(both[0], family.log_normaliser(natural))
        for a, b in zip(both[1], family.mean_parameters(natural), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("InverseGamma",)])
def test_entropy_and_divergence_agree_with_torch(name):
    family, (p, q) = FAMILIES[name], EXAMPLES[name]
    a, b = family.from_distribution(p), family.from_distribution(q)
    b = tuple(x.expand_as(y) for x, y in zip(b, a, strict=True))
    assert torch.allclose(family.entropy(a), p.entropy())
    if name != "Wishart":
        assert torch.allclose(family.kl(a, b), kl_divergence(p, q).expand_as(family.kl(a, b)))


@pytest.mark.parametrize("name", ["Normal", "Gamma", "InverseGamma", "Beta"])
def test_density_is_the_exponential_form(name):
    family, (p, _) = FAMILIES[name], EXAMPLES[name]
    natural = family.from_distribution(p)
    x = double([0.4, 0.9])
    statistic = {"log": x.log(), "log1m": (1 - x).log(), 1.0: x, 2.0: x**2, -1.0: 1 / x}
    t = tuple(statistic[s] for s in family.statistics)
    assert torch.allclose(family.inner(natural, t) - family.log_normaliser(natural), p.log_prob(x))


# ---- what coordinate ascent asks of a family ----------------------------------------------------


def _filled(family, natural):
    """η where nothing is said, in the shape of these."""
    parts = []
    for eta, dims, value in zip(natural, family.event_dims, family.filler, strict=True):
        one = torch.eye(eta.shape[-1]).double() if dims == 2 else torch.ones(()).double()
        parts.append((value * one).expand(eta.shape))
    return tuple(parts)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_element_of_which_nothing_is_said_is_proper(name):
    family = FAMILIES[name]
    assert bool(family.proper(_filled(family, family.from_distribution(EXAMPLES[name][0]))).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_starts_are_proper_and_seeded(name):
    family = FAMILIES[name]
    prior = family.from_distribution(EXAMPLES[name][0])
    for natural in (prior, _filled(family, prior)):
        first, again = (family.start(natural, torch.Generator().manual_seed(3)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert [eta.shape for eta in first] == [eta.shape for eta in natural]
        assert bool(family.proper(first).all())
        assert bool(family.proper(family.start(natural, None)).all())


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "Categorical"])
def test_coordinates_are_unconstrained(name):
    """There and back; and what lies beyond two members, in their coordinates, is a member."""
    family, (p, q) = FAMILIES[name], EXAMPLES[name]
    a, b = family.from_distribution(p), family.from_distribution(q)
    b = tuple(x.expand_as(y) for x, y in zip(b, a, strict=True))
    for back, eta in zip(family.from_coordinates(family.coordinates(a)), a, strict=True):
        torch.testing.assert_close(back, eta)
    if 2 not in family.event_dims:
        pairs = zip(family.coordinates(a), family.coordinates(b), strict=True)
        assert bool(
            family.proper(family.from_coordinates(tuple(x + 3 * (x - y) for x, y in pairs))).all()
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_moments_are_met(name):
    family, (p, _) = FAMILIES[name], EXAMPLES[name]
    if family.is_discrete:
        probabilities = p.probs
        made = family.to_distribution(family.with_moments(probabilities, None))
        torch.testing.assert_close(made.probs, probabilities, rtol=1e-6, atol=1e-8)
        return
    mean, variance = p.mean, p.variance
    made = family.to_distribution(family.with_moments(mean, variance))
    torch.testing.assert_close(made.mean, mean)
    if family.event_dims != (0, 2):  # a Wishart distribution has one number for all its variances
        torch.testing.assert_close(made.variance, variance)
    value = family.to_distribution(family.with_moments(mean, None))
    torch.testing.assert_close(value.mean, mean, rtol=1e-4, atol=1e-4)
    assert bool((value.variance <= 1e-5 * (1 + mean.abs().max() ** 2)).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_members_are_made_anew_from_their_parameters(name):
    family, (p, _) = FAMILIES[name], EXAMPLES[name]
    made = family.to_distribution(family.from_distribution(p))
    kind, parameters = members()[type(made).__name__]
    again = kind(**{name: getattr(made, name) for name in parameters}, validate_args=False)
    value = torch.zeros(()) if family.is_discrete else made.mean
    torch.testing.assert_close(again.log_prob(value), made.log_prob(value))
