"""Kumaraswamy: extremes in float32, published failures of other codes, and the fit to a Beta."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import torch
from torch.distributions import Beta, Distribution, kl_divergence

from vitools.distributions import Kumaraswamy, StickBreaking


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


EXTREMES = [1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3, 1e6]


def extreme_grid(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = torch.tensor(list(itertools.product(EXTREMES, EXTREMES)), dtype=dtype).log()
    return pairs[:, 0].requires_grad_(), pairs[:, 1].requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_at_the_extremes(dtype: torch.dtype) -> None:
    log_a, log_b = extreme_grid(dtype)
    q = Kumaraswamy(log_a, log_b)
    torch.manual_seed(0)
    log_v, log1m_v, log_q = q.rsample_log((4_000,))
    value = q.rsample((4_000,))
    assert ((value > 0) & (value < 1)).all()
    ends = torch.tensor([0.0, torch.finfo(dtype).tiny, 1 - torch.finfo(dtype).eps, 1.0]).to(dtype)
    outputs = {
        "log v": log_v,
        "log(1-v)": log1m_v,
        "log q": log_q,
        "value": value,
        "own score": q.log_prob(value),
        "score": q.log_prob(value.detach().clone()),
        "score at the ends": q.log_prob(ends[:, None]),
        "entropy": q.entropy(),
        "mean": q.mean,
        "variance": q.variance,
        "mean_log": q.mean_log,
        "mean_log1m": q.mean_log1m,
        "cdf": q.cdf(value.detach()),
        "cdf at the ends": q.cdf(ends[:, None]),
        "icdf": q.icdf(torch.linspace(0, 1, 101, dtype=dtype)[:, None]),
        "second moment": q.log_moment(2.0),
        "KL to a Beta": kl_divergence(q, Beta(torch.tensor(0.5, dtype=dtype), torch.tensor(3.0))),
        "KL to its like": kl_divergence(q, Kumaraswamy(log_a.flip(0), 0.1 * log_b)),
    }
    for name, output in outputs.items():
        assert output.isfinite().all(), name
        gradients = torch.autograd.grad(output.sum(), [log_a, log_b], retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients), name


@pytest.mark.parametrize("count", [0, 1])
def test_second_derivatives_are_those_of_finite_differences(count: int) -> None:
    """Of the draw at fixed noise, of its density, and of the density at a given value."""
    leaves = [torch.tensor([x, 0.3, 0.0]).double().requires_grad_() for x in (-0.6, 0.8)]

    def outputs(log_a: torch.Tensor, log_b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q = Kumaraswamy(log_a, log_b)
        torch.manual_seed(count)
        return *q.rsample_log(), q.log_prob(torch.tensor([0.02, 0.5, 0.97]).double())

    assert torch.autograd.gradcheck(outputs, leaves)
    assert torch.autograd.gradgradcheck(outputs, leaves)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_draws_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler switches validation off for good.
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)

    def draw(log_a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
        return Kumaraswamy(log_a, log_b, validate_args=False).rsample((3,))

    leaves = [torch.tensor([x, 0.3]).double().requires_grad_() for x in (-0.6, 0.8)]
    results = []
    for function in (draw, torch.compile(draw, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        value = function(*leaves)
        results.append((value, *torch.autograd.grad(value.sum(), leaves)))
    torch.testing.assert_close(*results)


def test_float32_scores_agree_with_float64() -> None:
    log_a, log_b = (x.detach() for x in extreme_grid(torch.float32))
    narrow, wide = Kumaraswamy(log_a, log_b), Kumaraswamy(log_a.double(), log_b.double())
    torch.manual_seed(1)
    log_v, log1m_v, _ = narrow.rsample_log((20_000,))
    draw = log_v - log1m_v
    exact = wide.log_prob_logit(draw.double())
    error = (narrow.log_prob_logit(draw).double() - exact).abs() / (1 + exact.abs())
    assert error.max() < 5e-5


def test_log_space_draws_reproduce_the_entropy_at_the_extremes() -> None:
    """E[-log q] over draws that all round to 0 or to 1 still has its closed form."""
    log_a, log_b = (x.detach() for x in extreme_grid(torch.float32))
    q = Kumaraswamy(log_a, log_b)
    torch.manual_seed(2)
    _, _, log_q = q.rsample_log((50_000,))
    standard_error = log_q.std(0) / 50_000**0.5
    assert ((-log_q.mean(0) - q.entropy()).abs() <= 4.5 * standard_error + 1e-5).all()


def test_cdf_inverts_icdf_and_matches_the_formula() -> None:
    q = Kumaraswamy.from_concentrations(
        torch.tensor(2.3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    )
    p = torch.linspace(0, 1, 101, dtype=torch.float64)
    v = q.icdf(p)
    torch.testing.assert_close(q.cdf(v), p, atol=1e-12, rtol=0)
    torch.testing.assert_close(q.cdf(v), 1 - (1 - v**2.3) ** 0.7, atol=1e-12, rtol=0)


def test_draws_follow_the_cdf() -> None:
    q = Kumaraswamy(
        torch.tensor(-1.0, dtype=torch.float64), torch.tensor(-0.5, dtype=torch.float64)
    )
    torch.manual_seed(3)
    uniform = q.cdf(q.sample((20_000,))).sort().values
    expected = (torch.arange(20_000) + 0.5) / 20_000
    assert (uniform - expected).abs().max() < 1.95 / 20_000**0.5  # Kolmogorov, p = .001


def test_where_other_implementations_fail() -> None:
    def k(a: float, b: float) -> Kumaraswamy:
        return Kumaraswamy.from_concentrations(*torch.tensor([a, b], dtype=torch.float32))

    assert k(200.0, 2.0).log_prob(torch.tensor(0.5)).item() == pytest.approx(-131.945, abs=1e-2)
    assert k(1e-8, 2.0).log_prob(torch.tensor(0.5)).item() == pytest.approx(-35.82, abs=1e-2)
    assert k(1.0, 1e8).mean.item() == pytest.approx(1e-8, rel=1e-6)
    assert k(3.0, 5.0).mode.item() == pytest.approx((2 / 14) ** (1 / 3), rel=1e-6)
    # a = n, b = 1: v^n is uniform, so the variance is n / ((n+1)² (n+2))
    assert k(1e4, 1.0).variance.item() == pytest.approx(1e4 / (10001.0**2 * 10002.0), rel=1e-4)
    torch.manual_seed(0)
    value = k(0.2, 0.2).sample((100_000,))
    assert k(0.2, 0.2).log_prob(value).isfinite().all()


@pytest.mark.parametrize(
    ("a", "b", "mode"),
    [(0.5, 2.0, 0.0), (2.0, 0.5, 1.0), (1.0, 3.0, 0.0), (3.0, 1.0, 1.0), (0.5, 0.5, math.nan)],
)
def test_modes_at_the_ends(a: float, b: float, mode: float) -> None:
    found = Kumaraswamy.from_concentrations(torch.tensor(a), torch.tensor(b)).mode.item()
    assert found == mode or (math.isnan(found) and math.isnan(mode))


@pytest.mark.parametrize("b", [1e-3, 0.1, 1.0, 1e3, 1e6])
def test_mean_log1m_at_a_equal_to_one(b: float) -> None:
    """1 - v is then U^{1/b}, so E log(1-v) = -1/b; the published series says -5.2 for b = .1."""
    q = Kumaraswamy(torch.zeros((), dtype=torch.float64), torch.tensor(math.log(b)).double())
    assert q.mean_log1m.item() == pytest.approx(-1 / q.concentration0.item(), rel=1e-12)


@pytest.mark.parametrize("a", [1e-2, 0.3, 4.0, 1e3])
@pytest.mark.parametrize("b", [1, 2, 5])
def test_mean_log1m_at_integer_b(a: float, b: int) -> None:
    """F is a signed mixture of K(ja, 1), j ≤ b, and there E log(1-v) = -(ψ(1 + ja) + γ)."""
    q = Kumaraswamy.from_concentrations(*torch.tensor([a, b], dtype=torch.float64))
    truth = sum(
        (-1) ** j * math.comb(b, j) * (scipy.special.digamma(1 + j * a) + np.euler_gamma)
        for j in range(1, b + 1)
    )
    assert q.mean_log1m.item() == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("concentration", [500.0, 1e3, 1e5, 1e6])
def test_narrow_ones_have_the_limit_of_a_gumbel(concentration: float) -> None:
    """At median ½ log b grows as a log 2; log v is then a Gumbel variable, and the Beta a normal.

    The least KL of a Gumbel variable from a normal is ½ log(2πe) + ½ log(π²/6) - 1 - γ = .0906.
    Moments are those of scipy's adaptive quadrature over t, whatever the size of b.
    """
    limit = 0.5 * math.log(2 * math.pi * math.e * math.pi**2 / 6) - 1 - np.euler_gamma
    target = Beta(*torch.tensor([[concentration], [concentration]], dtype=torch.float64))
    q, kl = Kumaraswamy.closest_to(target)
    assert limit - kl.item() == pytest.approx(0.4 / concentration**0.5, rel=0.1)  # skewness
    a, log_b = q.concentration1.item(), q.log_b.item()

    def expected(function: Callable[[float], float]) -> float:
        # t/b underflows nothing here: 1 - e^{-t/b} = t/b (1 - …) with a correction below 1e-11
        def integrand(s: float) -> float:
            return math.exp(s - math.exp(s)) * function(math.exp((s - log_b) / a))

        return scipy.integrate.quad(integrand, -60, 6, limit=500, epsabs=0, epsrel=1e-11)[0]

    mean = expected(lambda v: v)
    assert q.mean.item() == pytest.approx(mean, rel=1e-9)
    variance = expected(lambda v: (v - mean) ** 2)
    assert q.variance.item() == pytest.approx(variance, rel=1e-6)
    assert q.mode.item() == pytest.approx(math.exp((math.log(1 - 1 / a) - log_b) / a), rel=1e-9)
    torch.manual_seed(0)
    draw = Kumaraswamy(q.log_a.float(), q.log_b.float()).rsample((20_000,)).double()
    assert abs(draw.mean() - mean) < 4.5 * draw.std() / 20_000**0.5
    torch.testing.assert_close(q.icdf(q.cdf(draw)), draw)
    assert Kumaraswamy.from_mean(torch.tensor(0.5).double(), 2 * target.concentration1).mean == (
        pytest.approx(0.5, rel=1e-9)
    )


@pytest.mark.parametrize("a", [1e-3, 1e-2, 0.3])
@pytest.mark.parametrize("b", [1e-3, 10.0])
def test_variance_of_the_sparse_equals_the_beta_function(a: float, b: float) -> None:
    for dtype in (torch.float32, torch.float64):
        q = Kumaraswamy(*torch.tensor([a, b], dtype=dtype).log())
        a_, b_ = (math.exp(x.item()) for x in (q.log_a, q.log_b))
        log_moment = [math.log(b_) + scipy.special.betaln(1 + n / a_, b_) for n in (1, 2)]
        truth = math.exp(log_moment[1]) - math.exp(2 * log_moment[0])
        assert q.variance.item() == pytest.approx(truth, rel=1e-6)


def test_kl_to_a_concentrated_beta_survives_float32() -> None:
    """K(10⁶, 1) is Beta(10⁶, 1); log-gammas in single precision would leave .8 nats."""
    q = Kumaraswamy(torch.tensor(1e6).double().log().float(), torch.tensor(0.0).float())
    same = Beta(torch.tensor(1e6).float(), torch.tensor(1.0).float())
    assert abs(kl_divergence(q, same)) < 1e-6


def test_moments_equal_the_beta_function() -> None:
    q = Kumaraswamy.from_concentrations(
        torch.tensor(0.7, dtype=torch.float64), torch.tensor(3.1, dtype=torch.float64)
    )
    for order in (1, 2, 3):
        truth = 3.1 * scipy.special.beta(1 + order / 0.7, 3.1)
        assert q.log_moment(order).exp().item() == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.3, 0.3), (2.0, 3.0), (10.0, 10.0), (0.1, 5.0), (1.0, 4.0), (30.0, 0.5)]
)
def test_closest_to_beta_is_the_minimum(alpha: float, beta: float) -> None:
    """Against a simplex search on a KL computed by independent quadrature."""
    t = np.exp(np.linspace(-60, 5.5, 40_001))
    weight = t * np.exp(-t) * (65.5 / 40_000)

    def divergence(x: np.ndarray) -> float:
        a, b = np.exp(x)
        w = t / b
        log_v = np.where(w < 30, np.log(-np.expm1(-np.minimum(w, 30))), -np.exp(-w)) / a
        log1m = np.where(w < 30, np.log(-np.expm1(np.minimum(log_v, -1e-300))), -w - x[0])
        log_q = x[0] + x[1] + (a - 1) * log_v - (b - 1) * w
        log_p = (alpha - 1) * log_v + (beta - 1) * log1m - scipy.special.betaln(alpha, beta)
        return float(np.sum(weight * (log_q - log_p)))

    found = scipy.optimize.minimize(
        divergence,
        [math.log(alpha), math.log(beta)],
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 2000},
    )
    beta_distribution = Beta(
        torch.tensor(alpha, dtype=torch.float64), torch.tensor(beta, dtype=torch.float64)
    )
    closest, kl = Kumaraswamy.closest_to(beta_distribution)
    assert kl.item() == pytest.approx(found.fun, abs=1e-7)
    assert divergence(np.array([closest.log_a.item(), closest.log_b.item()])) == pytest.approx(
        found.fun, abs=1e-7
    )


def test_near_is_exact_where_the_families_meet_and_finite_everywhere() -> None:
    nodes = torch.tensor([1e-3, 0.1, 1.0, 7.0, 1e3, 1e6], dtype=torch.float32)
    pairs = torch.cartesian_prod(nodes, nodes)
    near = Kumaraswamy.near(Beta(pairs[:, 0], pairs[:, 1]))
    assert near.log_a.isfinite().all()
    assert near.log_b.isfinite().all()
    meet = (pairs == 1.0).any(-1)
    torch.testing.assert_close(near.log_a[meet], pairs[meet, 0].log(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(near.log_b[meet], pairs[meet, 1].log(), rtol=1e-4, atol=1e-5)
    usual = Beta(*torch.cartesian_prod(*[torch.tensor([0.5, 2.0, 8.0])] * 2).T)
    assert kl_divergence(Kumaraswamy.near(usual), usual).max() < 0.05


def test_closeness_to_beta_as_published() -> None:
    """At most .014 nats on [1,10]², .056 on [.3,100]², .092 on [.1,100]²; .49 at (.01,.01)."""

    def worst(low: float, high: float) -> float:
        nodes = torch.logspace(math.log10(low), math.log10(high), 9, dtype=torch.float64)
        pairs = torch.cartesian_prod(nodes, nodes)
        return Kumaraswamy.closest_to(Beta(pairs[:, 0], pairs[:, 1]))[1].max().item()

    assert worst(1.0, 10.0) == pytest.approx(0.014, abs=5e-4)
    assert worst(0.3, 100.0) == pytest.approx(0.056, abs=5e-4)
    assert worst(0.1, 100.0) == pytest.approx(0.092, abs=1e-3)
    assert worst(0.01, 0.01) == pytest.approx(0.49, abs=5e-3)


def test_equal_concentrations_are_not_the_approximation() -> None:
    def kl(c: float) -> float:
        equal = torch.tensor(c, dtype=torch.float64)
        return kl_divergence(Kumaraswamy(equal.log(), equal.log()), Beta(equal, equal)).item()

    # by scipy's adaptive quadrature of the textbook densities
    assert kl(10.0) == pytest.approx(3.06345420, abs=1e-7)
    assert kl(50.0) == pytest.approx(58.8359913, abs=1e-6)


def test_sticks_on_a_long_sparse_simplex_stay_finite() -> None:
    log_a = torch.full((999,), math.log(0.01), dtype=torch.float32, requires_grad=True)
    log_b = torch.full((999,), math.log(5.0), dtype=torch.float32, requires_grad=True)
    q = StickBreaking.kumaraswamy(log_a, log_b)
    torch.manual_seed(0)
    value = q.rsample((20,))
    assert (value > 0).all()
    torch.testing.assert_close(value.sum(-1), torch.ones(20).float(), rtol=0, atol=1e-5)
    total = q.log_prob(value).sum() + (value.log() * value).sum()
    for gradient in torch.autograd.grad(total, [log_a, log_b]):
        assert gradient.isfinite().all()


def test_from_mean_has_that_mean() -> None:
    mean = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.999], dtype=torch.float64)
    for concentration in (0.5, 2.0, 50.0):
        q = Kumaraswamy.from_mean(mean, torch.tensor(concentration))
        torch.testing.assert_close(q.mean, mean, rtol=1e-9, atol=0)
    for concentration in (5.0, 50.0):  # α and β at least a half
        q = Kumaraswamy.from_mean(mean[1:4], torch.tensor(concentration))
        spread = mean[1:4] * (1 - mean[1:4]) / (concentration + 1)
        assert ((q.variance / spread).log().abs() < math.log(2)).all()
