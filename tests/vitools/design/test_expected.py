"""Expected information gains against closed forms, by every method, and each bound on its side."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from models_of_experiments import T, coin, line, line_gain, oscillator, slope_alone_gain, two_sites
from scipy import integrate, special, stats
from seeds import assert_bound, assert_within_errors

from vitools import Problem, exact, laplace
from vitools.design import expected_information_gain
from vitools.design.expected import METHODS
from vitools.errors import ModelError, NotSupportedError, OptionError
from vitools.posterior import DrawsPosterior, Posterior, Status

X = T([0.0, 0.5, 1.5])


def test_linear_models_exactly():
    exact_gains = [line_gain(x.reshape(1)) for x in X]
    for method in ("grid", "laplace"):
        found = expected_information_gain(line, X, method=method)
        assert found.values.tolist() == pytest.approx(exact_gains, abs=1e-6)
        assert max(found.standard_errors) < 1e-5
        assert found.best == 2
        assert torch.equal(found.design, X[2:])


def test_batches_of_measurements():
    several = [T([0.0, 1.0]), T([1.0, 1.0, -1.0])]
    found = expected_information_gain(line, several, method="laplace")
    assert found.values.tolist() == pytest.approx([line_gain(x) for x in several], abs=1e-6)
    nested = [
        expected_information_gain(line, several[:1], method="nested", num_samples=300, seed=s)[0]
        for s in range(25)
    ]
    assert_bound(nested, line_gain(several[0]), "upper")


SIDES = {"nested": "upper", "contrastive": "lower", "posterior": "lower", "marginal": "upper"}


@pytest.mark.parametrize("method", list(SIDES))
def test_bounds_on_a_linear_model(method):
    """Normal densities are the right ones here, so the learnt bounds are tight; the others nearly."""
    x = T([0.5])
    found = [
        expected_information_gain(line, x, method=method, num_samples=400, seed=s)[0]
        for s in range(25)
    ]
    assert_bound(found, line_gain(x), SIDES[method])
    # of order 1/n: effective number of parameters, learnt or averaged over, by draws
    assert_within_errors(found, line_gain(x), slack=0.02)


@pytest.mark.slow
def test_coin_flips_exactly():
    """Beta-binomial: uniform prior, so that each count is equally likely."""

    def gain(n):
        total = math.log(n + 1)
        for k in range(n + 1):
            posterior = stats.beta(1 + k, 1 + n - k)
            left = integrate.quad(lambda p: posterior.pdf(p) * stats.binom(n, p).logpmf(k), 0, 1)[0]  # noqa: B023
            total += left / (n + 1)
        return total

    counts = T([1.0, 4.0, 10.0])
    found = expected_information_gain(coin, counts)
    assert found.method == "grid"
    assert found.values.tolist() == pytest.approx([gain(int(n)) for n in counts], abs=1e-5)
    for estimate, n in zip(found, counts.tolist(), strict=True):
        assert abs(estimate.value - gain(int(n))) < 2 * estimate.standard_error + 1e-8
    listed = [
        expected_information_gain(coin, counts[1:2], method="listed", num_samples=500, seed=s)[0]
        for s in range(25)
    ]
    assert_bound(listed, gain(4), "lower")
    assert_within_errors(listed, gain(4), slack=0.003)


def oscillator_by_hand(t):
    """H(y) - H(noise) on a grid of ω and γ, the outcome's density by the trapezoid rule."""
    omega = 1 + 4 * (torch.arange(800) + 0.5) / 800
    gamma = 0.05 + 0.45 * (torch.arange(60) + 0.5) / 60
    omega, gamma = omega[:, None], gamma[None, :]
    ringing = (omega**2 - gamma**2 / 4).sqrt()
    q = (-gamma * t / 2).exp() * ((ringing * t).cos() + gamma / (2 * ringing) * (ringing * t).sin())
    y = torch.linspace(-1.8, 1.8, 1201)
    density = torch.stack([dist.Normal(q, 0.1).log_prob(v).exp().mean() for v in y])
    return (
        float(torch.trapezoid(-torch.special.xlogy(density, density), y))
        - stats.norm(0, 0.1).entropy()
    )


@pytest.mark.slow
def test_the_oscillator_on_a_grid():
    for t in (0.4, 6.0):
        (found,) = expected_information_gain(oscillator, T([t]))
        assert found.value == pytest.approx(oscillator_by_hand(t), abs=2e-4)
        assert abs(found.value - oscillator_by_hand(t)) < found.standard_error + 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "flow"), [("posterior", "spline"), ("posterior", None), ("marginal", "spline")]
)
def test_flows_bring_bounds_nearer_on_the_oscillator(method, flow):
    """Its posteriors have several modes, its outcomes two humps: normal densities are far off."""
    t, truth = T([2.0]), oscillator_by_hand(2.0)
    found = expected_information_gain(oscillator, t, method=method, flow=flow, num_samples=4000)[0]
    gap = (found.value - truth) * (1 if method == "marginal" else -1)
    assert gap > -4 * found.standard_error
    assert gap < (0.25 if flow else 2.0)
    if flow is None:
        assert gap > 0.3


# ---- targets and nuisances ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["nested", "posterior", "laplace"])
def test_what_is_learnt_of_one_latent(method):
    x = T([0.8])
    truth = slope_alone_gain(T(0.8))
    count = 1 if method == "laplace" else 20
    found = [
        expected_information_gain(
            two_sites, x, targets="slope", method=method, num_samples=300, seed=s
        )[0]
        for s in range(count)
    ]
    if method == "laplace":
        assert found[0].value == pytest.approx(truth, abs=0.05)  # C from 4000 draws of the prior
    else:
        assert_within_errors(found, truth, slack=0.02)


def sharp(x, y=None):
    """As ``two_sites``, with a noise of which few draws of the offset are right."""
    offset = pyro.sample("offset", dist.Normal(T(0.0), 1.0))
    slope = pyro.sample("slope", dist.Normal(T(0.0), 2.0))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(offset + slope * x, T(0.25)), obs=y)


@pytest.mark.slow
def test_beside_nuisances_it_is_within_its_errors():
    """No slack: what is left of the bias of a logarithm of a mean is in the error."""
    truth = 0.5 * math.log1p(4 * 0.8**2 / (1 + 0.25**2))
    found = [
        expected_information_gain(
            sharp, T([0.8]), targets="slope", method="nested", num_samples=400, seed=s
        )[0]
        for s in range(24)
    ]
    assert_within_errors(found, truth)
    values = torch.tensor([e.value for e in found])
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / math.sqrt(len(found))


def test_beside_nuisances_it_says_so_where_draws_are_too_few():
    (found,) = expected_information_gain(
        sharp, T([0.8]), targets="slope", method="nested", num_samples=20
    )
    assert found.standard_error == math.inf
    assert found.side == ""


def factored(x, y=None):
    w = pyro.sample("w", dist.Normal(T(0.0), 1.0))
    pyro.factor("tilt", -w.abs())
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_a_factor_is_refused_by_every_method(method):
    with pytest.raises(NotSupportedError, match=r"pyro.factor statement \('tilt'\)"):
        expected_information_gain(factored, X, method=method)


def which_model(x, y=None):
    """Does y rise with x or not? A discrete target."""
    rises = pyro.sample("rises", dist.Bernoulli(T(0.5)))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(rises * x, 1.0), obs=y)


def test_a_discrete_target():
    """Two normals told apart: log 2 less the entropy that is left, by quadrature."""
    y = torch.linspace(-12, 14, 5001)
    one, other = dist.Normal(2.0, 1.0).log_prob(y), dist.Normal(0.0, 1.0).log_prob(y)
    share = torch.sigmoid(one - other)
    left = -torch.special.xlogy(share, share) - torch.special.xlogy(1 - share, 1 - share)
    truth = math.log(2) - float(torch.trapezoid(left * (one.exp() + other.exp()) / 2, y))
    found = [
        expected_information_gain(which_model, T([2.0]), targets="rises", num_samples=400, seed=s)
        for s in range(25)
    ]
    assert found[0].method == "nested"
    assert_within_errors([f[0] for f in found], truth, slack=0.002)


# ---- from a posterior --------------------------------------------------------------------------


def after(x, data):
    """The gain at x given data at x, whatever they were."""
    both = torch.cat([data, x])
    return line_gain(both) - line_gain(data)


@pytest.mark.parametrize("method", ["auto", "laplace", "nested"])
def test_from_a_fit_it_is_what_is_still_to_be_learnt(method):
    data = T([0.2, 1.0])
    fit = laplace(Problem(line, data, y=T([0.3, -0.4])))
    found = expected_information_gain(fit, X, method=method, num_samples=1500)
    for estimate, x in zip(found, X, strict=True):
        slack = 0.02 if method == "nested" else 1e-5
        assert abs(estimate.value - after(x.reshape(1), data)) < 4 * estimate.standard_error + slack


def test_for_linear_models_results_do_not_matter():
    data = T([0.2, 1.0])
    gains = [
        expected_information_gain(laplace(Problem(line, data, y=y)), X, method="laplace").values
        for y in (T([0.0, 0.0]), T([5.0, -3.0]))
    ]
    assert torch.allclose(*gains, atol=1e-9)


def test_from_a_grid_and_from_chains():
    flips = T([10.0])
    fit = exact(Problem(coin, flips, heads=T([3.0])))
    (by_grid,) = expected_information_gain(fit, T([5.0]))
    p = stats.beta(4, 8)
    k = range(6)
    mean_left = integrate.quad(lambda x: p.pdf(x) * stats.binom(5, x).entropy(), 0, 1)[0]
    marginal = stats.betabinom(5, 4, 8)
    truth = float(-sum(special.xlogy(marginal.pmf(i), marginal.pmf(i)) for i in k)) - mean_left
    assert by_grid.value == pytest.approx(truth, abs=1e-5)
    draws = torch.as_tensor(p.rvs(4000, random_state=0)).reshape(4, 1000)
    chains = DrawsPosterior(fit.problem, {"p": draws}, engine="nuts", status=Status.SAMPLED)
    found = expected_information_gain(chains, T([5.0]), num_samples=2000)
    assert found.method == "listed"
    assert abs(found[0].value - truth) < 4 * found[0].standard_error + 0.002


# ---- refusals ----------------------------------------------------------------------------------


def without_argument(x):
    w = pyro.sample("w", dist.Normal(T(0.0), 1.0))
    pyro.sample("y", dist.Normal(w * x, 1.0).to_event(1))


def test_observations_may_be_named():
    found = expected_information_gain(
        without_argument, T([1.0]), observations="y", method="laplace"
    )
    assert found[0].value == pytest.approx(0.5 * math.log(2), abs=0.02)


def with_own_scatter(x, y=None):
    w = pyro.sample("w", dist.Normal(T(0.0), 1.0))
    with pyro.plate("measurements", len(x)):
        scatter = pyro.sample("scatter", dist.Normal(T(0.0), 1.0))
        pyro.sample("y", dist.Normal(w * x + scatter, 1.0), obs=y)


POINT = T([1.0])


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: expected_information_gain(3, POINT), OptionError, "model: expected a Pyro model .* got int"),
        (lambda: expected_information_gain(Problem(line, POINT, y=POINT), POINT), OptionError, "model: .* got Problem"),
        (lambda: expected_information_gain(line, T(1.0)), OptionError, r"designs: expected a tensor \[C, …\] .* got shape \[\]"),
        (lambda: expected_information_gain(line, []), OptionError, "designs: .* got an empty list"),
        (lambda: expected_information_gain(line, "x"), OptionError, "designs: .* got str"),
        (lambda: expected_information_gain(line, POINT, method="nest"), OptionError, "method: expected one of auto, grid.*'nested'"),
        (lambda: expected_information_gain(line, POINT, method=["grid"]), OptionError, "method: expected one of auto"),
        (lambda: expected_information_gain(line, POINT, method="posterior", flow=["x"]), OptionError, "flow: expected one of spline"),
        (lambda: expected_information_gain(line, POINT, flow="spline"), OptionError, "flow: only methods posterior and marginal"),
        (lambda: expected_information_gain(line, POINT, method="posterior", flow="x"), OptionError, "flow: expected one of spline"),
        (lambda: expected_information_gain(line, POINT, num_samples=5), OptionError, "num_samples: expected a whole number of at least 10"),
        (lambda: expected_information_gain(line, POINT, seed=1.5), OptionError, "seed: expected a whole number"),
        (lambda: expected_information_gain(without_argument, POINT), OptionError, r"observations: expected the names .*sites: w, y"),
        (lambda: expected_information_gain(line, POINT, observations="z"), OptionError, "observations: the model has no site 'z'"),
        (lambda: expected_information_gain(line, POINT, observations=3), OptionError, "observations: expected the name of a site or several, got 3"),
        (lambda: expected_information_gain(line, POINT, targets="v"), OptionError, "targets: no latent 'v'"),
        (lambda: expected_information_gain(line, [3]), ModelError, "the model raised TypeError at design 3"),
        (lambda: expected_information_gain(two_sites, POINT, targets="slope", method="contrastive"), NotSupportedError, "method 'contrastive' needs every latent"),
        (lambda: expected_information_gain(two_sites, POINT, targets="slope", method="marginal"), NotSupportedError, "method 'marginal' needs every latent"),
        (lambda: expected_information_gain(line, POINT, method="listed"), NotSupportedError, "outcomes that can be listed"),
        (lambda: expected_information_gain(line, [T([0.0, 1.0])], method="grid"), NotSupportedError, "method 'grid' takes one number"),
    ],
)  # fmt: skip
def test_what_is_refused(call, kind, words):
    with pytest.raises(kind, match=words) as found:
        call()
    assert str(found.value)[-1] in ".?…"


def test_a_fit_that_cannot_be_believed_is_refused():
    data = T([0.2, 1.0])
    fit = laplace(Problem(two_sites, data, y=T([0.3, -0.4])))
    with pytest.raises(NotSupportedError, match="what is believed of them given the targets"):
        expected_information_gain(fit, POINT, targets="slope", method="nested")
    with pytest.raises(NotSupportedError, match="needs the density of the targets"):
        expected_information_gain(fit, POINT, targets="slope", method="posterior")
    found = expected_information_gain(fit, POINT, targets="slope", method="laplace")[0]
    assert 0 < found.value < 1


def test_what_is_a_new_measurements_own_is_no_target():
    fit = Posterior.from_gaussian(
        Problem(with_own_scatter, POINT, y=POINT), T([0.0, 0.0]), T([1.0, 1.0])
    )
    found = expected_information_gain(fit, [T([1.0, 1.0])], num_samples=400)
    assert found.method == "nested"
    # w ~ N(0, 1), two outcomes with noise of variance 2 each
    assert found[0].value == pytest.approx(
        0.5 * math.log(2), abs=4 * found[0].standard_error + 0.03
    )


@pytest.mark.parametrize("targets", [None, "w"])
def test_nor_is_it_where_the_fit_has_seen_as_many(targets):
    fit = Posterior.from_gaussian(
        Problem(with_own_scatter, POINT, y=POINT), T([0.0, 0.0]), T([1.0, 0.1])
    )
    exact = 0.5 * math.log(1.5)  # w ~ N(0, 1), noise of variance 2
    found = expected_information_gain(fit, POINT, targets=targets, num_samples=400)[0]
    assert found.value == pytest.approx(exact, abs=4 * found.standard_error + 0.03)
    smooth = expected_information_gain(fit, POINT, targets="w", method="laplace")[0]
    assert smooth.value == pytest.approx(exact, abs=0.02)  # variances of 4000 draws


def outcomes_of(make):
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(T(0.0), 1.0))
        with pyro.plate("measurements", len(x)):
            pyro.sample("y", make(w * x), obs=y)

    return model


def test_outcomes_of_other_kinds_on_a_grid():
    # a logarithm tells what its argument does
    for make in (lambda m: dist.LogNormal(m, 1.0), lambda m: dist.Normal(m, 1.0)):
        found = expected_information_gain(outcomes_of(make), POINT)
        assert found.method == "grid"
        assert found[0].value == pytest.approx(0.5 * math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: dist.Normal(m, 1.0).mask(True),
        lambda m: dist.MixtureSameFamily(
            dist.Categorical(T([0.5, 0.5])), dist.Normal(m.unsqueeze(-1) + T([0.0, 0.0]), T(1.0))
        ),
    ],
    ids=["masked", "mixture"],
)
def test_what_no_grid_takes_is_nested(make):
    found = expected_information_gain(outcomes_of(make), POINT, num_samples=50)
    assert found.method == "nested"
    with pytest.raises(NotSupportedError, match="Use method='nested'"):
        expected_information_gain(outcomes_of(make), POINT, method="grid")
