"""A normal in each case: ∇A against autograd, quadrature over w, the way back from a distribution."""

import torch

from vitools.families.gated_normal import GatedNormalFamily

FAMILY = GatedNormalFamily()


def member():
    generator = torch.Generator().manual_seed(0)

    def randn():
        return torch.randn(4, 3, generator=generator, dtype=torch.float64)

    return randn(), 2 * randn(), -randn().exp()


def test_mean_parameters_are_the_gradient_of_the_log_normaliser():
    natural = tuple(x.requires_grad_() for x in member())
    gradient = torch.autograd.grad(FAMILY.log_normaliser(natural).sum(), natural)
    for found, expected in zip(FAMILY.mean_parameters(natural), gradient, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_log_normaliser_is_the_sum_over_cases_of_the_integral():
    case, linear, square = member()
    w = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    density = (case[..., None] + linear[..., None] * w + square[..., None] * w**2).exp()
    total = torch.trapezoid(density.sum(-2), w)
    torch.testing.assert_close(FAMILY.log_normaliser((case, linear, square)).exp(), total)
    marginal = FAMILY.to_distribution((case, linear, square))
    at = marginal.log_prob(w[30_100].expand(4)).exp()
    torch.testing.assert_close(at, density.sum(-2)[:, 30_100] / total)


def test_entropy_is_minus_the_mean_log_density_of_both():
    natural = member()
    chances, mean, square = FAMILY.mean_parameters(natural)
    inner = (natural[0] * chances + natural[1] * mean + natural[2] * square).sum(-1)
    expected = FAMILY.log_normaliser(natural) - inner
    torch.testing.assert_close(FAMILY.entropy(natural), expected)
    weights = chances.log().where(chances > 0, 0.0)
    apart = -(chances * weights).sum(-1)
    within = (chances * 0.5 * (torch.pi * torch.e / -natural[2]).log()).sum(-1)
    torch.testing.assert_close(expected, apart + within)


def test_there_and_back():
    natural = member()
    for again in (
        FAMILY.from_distribution(FAMILY.to_distribution(natural)),
        FAMILY.from_coordinates(FAMILY.coordinates(natural)),
    ):
        assert bool(FAMILY.proper(again).all())
        for found, expected in zip(
            FAMILY.mean_parameters(again), FAMILY.mean_parameters(natural), strict=True
        ):
            torch.testing.assert_close(found, expected)


def test_the_same_normal_in_every_case():
    chances = torch.tensor([[0.2, 0.8]], dtype=torch.float64)
    mean, variance = torch.tensor([1.5], dtype=torch.float64), torch.tensor([0.3]).double()
    marginal = FAMILY.to_distribution(FAMILY.placed(chances, mean, variance))
    torch.testing.assert_close(marginal.mean, mean)
    torch.testing.assert_close(marginal.variance, variance)
    torch.testing.assert_close(marginal.mixture_distribution.probs, chances)
