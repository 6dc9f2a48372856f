"""Logistic normals and Dirichlets: relations between them, sparse concentrations, published gaps."""

import math

import pytest
import scipy.integrate
import scipy.special
import torch

from vitools.distributions import Beta, Dirichlet, LogisticNormal, StickBreaking
from vitools.distributions.stick_breaking import dirichlet_sticks


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def test_laplace_bridge_round_trip() -> None:
    concentration = torch.tensor([[0.7, 2.0, 5.0, 1.3], [3.0, 3.0, 3.0, 3.0]]).double()
    there = LogisticNormal.from_dirichlet(concentration, method="laplace")
    torch.testing.assert_close(there.to_dirichlet().concentration, concentration)


def test_laplace_covariance_in_the_softmax_basis() -> None:
    """Σ_kk = (1 - 2/K)/α_k + Σ 1/α_i / K² of the centred logits, as published for ProdLDA."""
    alpha = torch.tensor([0.7, 2.0, 5.0]).double()
    q = LogisticNormal.from_dirichlet(alpha, method="laplace")
    centring = torch.eye(3).double()[:, :2] - 1 / 3
    found = (centring @ q.gaussian.covariance_matrix @ centring.T).diagonal()
    torch.testing.assert_close(found, (1 - 2 / 3) / alpha + (1 / alpha).sum() / 9)


def test_moment_matching_has_the_log_ratio_moments_of_the_dirichlet() -> None:
    alpha = torch.tensor([0.7, 2.0, 5.0]).double()
    ratios = LogisticNormal.from_dirichlet(alpha).log_ratios
    a = alpha.numpy()
    mean = scipy.special.digamma(a[:2]) - scipy.special.digamma(a[2])
    torch.testing.assert_close(ratios.mean, torch.from_numpy(mean))
    trigamma = torch.from_numpy(scipy.special.polygamma(1, a))
    torch.testing.assert_close(
        ratios.covariance_matrix, torch.diag_embed(trigamma[:2]) + trigamma[2]
    )


@pytest.mark.parametrize(("alpha", "gap"), [(1.0, 0.67), (0.1, 2.3), (0.02, 2.6)])
def test_gap_between_dirichlet_and_its_logistic_normal(alpha: float, gap: float) -> None:
    """KL(Dirichlet ‖ logistic normal) at K = 10, as published, from draws in log-space."""
    concentration = torch.full((10,), alpha).double()
    p, q = Dirichlet(concentration), LogisticNormal.from_dirichlet(concentration)
    torch.manual_seed(0)
    log_value = p.rsample_log((20_000,))
    terms = p.log_prob_log(log_value) - q.log_prob_log(log_value)
    assert abs(terms.mean() - gap) < 4.5 * terms.std() / 20_000**0.5 + 0.05


def test_sparse_dirichlet_gradient_is_unbiased_in_float32() -> None:
    """d/dα₁ E log π₁ = ψ₁(α₁) - ψ₁(Σα), where torch's draws give 5410 for 7500."""
    for alpha in (1e-3, 1e-2, 0.1, 3.0):
        concentration = torch.tensor([alpha, 0.5, 2 * alpha], dtype=torch.float32)
        lanes = concentration.expand(100_000, 3).clone().requires_grad_()
        torch.manual_seed(0)
        log_value = Dirichlet(lanes).rsample_log()
        (gradient,) = torch.autograd.grad(log_value[:, 0].sum(), lanes)
        lane = gradient[:, 0].double()
        total = concentration.double().sum().item()
        truth = scipy.special.polygamma(1, concentration[0].item()) - scipy.special.polygamma(
            1, total
        )
        assert abs(lane.mean() - truth) < 4.5 * lane.std() / len(lane) ** 0.5


@pytest.mark.parametrize("family", ["dirichlet", "beta", "logistic_normal"])
def test_extremes_are_finite_in_float32(family: str) -> None:
    for size in (1e-3, 1e-2, 1.0, 1e3, 1e6):
        leaf = torch.tensor([size, 1.0, 2 * size], dtype=torch.float32, requires_grad=True)
        q = {
            "dirichlet": lambda x: Dirichlet(x),
            "beta": lambda x: Beta(x, x.flip(0)),
            "logistic_normal": lambda x: LogisticNormal(x.log() * 5, x.sqrt()),
        }[family](leaf)
        torch.manual_seed(0)
        value = q.rsample((5_000,))
        assert ((value > 0) & (value <= 1)).all()
        for score in (q.log_prob(value), q.log_prob(value.detach().clone())):
            assert score.isfinite().all()
            (gradient,) = torch.autograd.grad(score.sum() + value.sum(), leaf, retain_graph=True)
            assert gradient.isfinite().all()


def test_beta_sticks_are_the_dirichlet() -> None:
    alpha = torch.tensor([0.4, 1.7, 0.9, 2.0]).double()
    sticks = dirichlet_sticks(alpha)
    q = StickBreaking(Beta(sticks.concentration1, sticks.concentration0))
    value = torch.distributions.Dirichlet(torch.ones(4).double()).sample((100,))
    exact = torch.distributions.Dirichlet(alpha)
    torch.testing.assert_close(q.log_prob(value), exact.log_prob(value))
    torch.testing.assert_close(q.mean, exact.mean)
    torch.testing.assert_close(q.variance, exact.variance)
    torch.testing.assert_close(q.entropy(), exact.entropy())


def test_kl_on_the_simplex_is_below_that_of_the_logits() -> None:
    p = LogisticNormal(torch.tensor([2.0, 0.0, -1.0]), torch.tensor([0.5, 1.0, 2.0]))
    q = LogisticNormal(torch.tensor([0.0, 0.0, 0.0]), torch.ones(3))
    on_logits = torch.distributions.kl_divergence(p.gaussian, q.gaussian)
    on_simplex = torch.distributions.kl_divergence(p, q)
    assert 0 < on_simplex < on_logits - 0.1


@pytest.mark.parametrize(("mean", "scale"), [(0.4, 0.05), (-1.5, 2.0), (30.0, 3.0), (5.0, 60.0)])
@pytest.mark.parametrize("reference", [False, True])
def test_entropy_of_two_entries_is_exact(mean: float, scale: float, reference: bool) -> None:
    """E log(θ₁ θ₂) = E[r - 2 log(1 + e^r)], r the log-ratio, by scipy's adaptive quadrature."""

    def integrand(z: float) -> float:
        r = mean + scale * z
        softplus = max(r, 0.0) + math.log1p(math.exp(-abs(r)))
        return (r - 2 * softplus) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    kink = min(max(-mean / scale, -11.0), 11.0)
    pieces = [scipy.integrate.quad(integrand, *ends)[0] for ends in ((-12, kink), (kink, 12))]
    truth = 0.5 * math.log(2 * math.pi * math.e * scale**2) + sum(pieces)
    if reference:
        loc, spread = torch.tensor([mean]).double(), torch.tensor([scale]).double()
    else:
        loc = torch.tensor([mean + 1.0, 1.0]).double()
        spread = torch.tensor([0.6, 0.8]).double() * scale
    value, error = LogisticNormal(loc, spread, reference=reference).entropy_and_error()
    assert value.item() == pytest.approx(truth, rel=1e-8)
    assert error == 0


def test_logistic_normal_needs_one_covariance() -> None:
    with pytest.raises(ValueError, match="give scale"):
        LogisticNormal(torch.zeros(3))
    with pytest.raises(ValueError, match="moments"):
        LogisticNormal.from_dirichlet(torch.ones(3), method="magic")
    assert math.isfinite(LogisticNormal(torch.zeros(3), torch.ones(3)).mean.sum())
