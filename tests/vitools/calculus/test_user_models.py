"""Models as people write them: what was once read wrongly, or not at all, stays read rightly."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import (
    assert_bound_matches_monte_carlo,
    assert_never_falls,
    assert_updates_are_optimal,
    fitted,
)
from pyro import poutine, sample
from pyro.infer.reparam import LocScaleReparam

from vitools import Problem, cavi
from vitools.calculus.words.explain import explain
from vitools.errors import NotConjugateError

_generator = torch.Generator().manual_seed(0)
N = 30
X = torch.randn(N, 3, generator=_generator, dtype=torch.float64)
Y = torch.randn(N, generator=_generator, dtype=torch.float64) + 1
LABELS = torch.randint(3, (N,), generator=_generator)
SEEN = torch.arange(N) > N // 2
HOLES = torch.where(SEEN, Y, torch.nan)


def two_designs():
    """One matrix beside its own first columns: features at the same place in memory."""
    with pyro.plate("k", 2):
        short = sample("short", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        long = sample("long", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("n", N):
        z = sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
        sample("y1", dist.Normal((X[:, :2] * short[z]).sum(-1), 1.0), obs=X[:, 0])
        sample("y2", dist.Normal((X * long[z]).sum(-1), 1.0), obs=X[:, 1])


def partly_labelled():
    """Unseen labels are latents; rows with a label count as well."""
    weights = sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("k", 3):
        mean = sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("n", N):
        z = sample("z", dist.Categorical(weights), obs=LABELS, obs_mask=SEEN)
        sample("y", dist.Normal(mean[z], 1.0), obs=Y)


def chosen_by_the_user():
    """Missing covariates put in by hand: torch.where over data that are nan there."""
    slope, tau = sample("slope", dist.Normal(0.0, 1.0)), sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("n", N):
        missing = sample("missing", dist.Normal(0.0, 1.0))
        x = torch.where(HOLES.isnan(), missing, HOLES)
        sample("y", dist.Normal(slope * x, tau.rsqrt()), obs=X[:, 0])


def random_scale_matrix():
    rate = sample("rate", dist.Gamma(2.0, 1.0))
    precision = sample("L", dist.Wishart(torch.tensor(4.0), precision_matrix=rate * torch.eye(2)))
    with pyro.plate("n", N):
        x = dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision)
        sample("x", x, obs=X[:, :2])


def binary_emissions():
    """Bernoulli nodes whose probabilities are tables of their parents."""
    p = sample("p", dist.Beta(2.0, 1.0))
    with pyro.plate("n", N):
        z = sample("z", dist.Bernoulli(p))
        u = sample("u", dist.Bernoulli(torch.tensor([0.2, 0.9])[z.long()]))
        y = dist.Binomial(3, 0.1 + 0.3 * z + 0.4 * u)
        sample("y", y, obs=LABELS.double())


@pytest.mark.filterwarnings("ignore:Singular sample")
@pytest.mark.parametrize(
    "model",
    [two_designs, partly_labelled, chosen_by_the_user, random_scale_matrix, binary_emissions],
)
def test_bound_and_updates(model):
    conjugate, bounds = fitted(model)
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)
    with pyro.validation_enabled(False):
        assert_bound_matches_monte_carlo(conjugate, model, ())


def test_missing_values_that_another_site_reads():
    """x is missing, y is seen: the two sites' bound is that of the same model with latents."""

    def with_mask():
        m = sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("n", N):
            x = sample("x", dist.Normal(m, 1.0), obs=HOLES, obs_mask=SEEN)
            sample("y", dist.Normal(x, 0.5), obs=X[:, 0])

    def by_hand():
        m = sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("seen", int(SEEN.sum())):
            sample("x", dist.Normal(m, 1.0), obs=Y[SEEN])
            sample("y", dist.Normal(Y[SEEN], 0.5), obs=X[SEEN, 0])
        with pyro.plate("unseen", int((~SEEN).sum())):
            x = sample("x_unseen", dist.Normal(m, 1.0))
            sample("y_unseen", dist.Normal(x, 0.5), obs=X[~SEEN, 0])

    # A site with a mask shares no factor with its mean.
    assert fitted(with_mask, sweeps=40)[1][-1] == pytest.approx(
        fitted(by_hand, sweeps=40, joint=())[1][-1], rel=1e-10
    )


def test_a_masked_latent_that_is_read_keeps_its_prior():
    def model(mask):
        m = sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("n", N):
            with poutine.mask(mask=mask):
                x = sample("x", dist.Normal(m, 1.0))
            sample("y", dist.Normal(x, 1.0), obs=Y)

    masked = fitted(model, (SEEN,), sweeps=40)[1][-1]
    assert masked == pytest.approx(fitted(model, (SEEN | True,), sweeps=40)[1][-1], rel=1e-12)


@pytest.mark.parametrize(
    ("handler", "count"),
    [
        (pyro.plate("n", 10), 10),
        (poutine.scale(scale=3.0), 3),
        (poutine.mask(mask=torch.arange(10) < 4), 4),
    ],
)
def test_factor_statements_in_plates_under_scales_and_masks(handler, count):
    """N(0, 1) times c factors exp(-(a-1)²/2): precision 1 + c, mean c / (1 + c)."""

    def model():
        a = sample("a", dist.Normal(0.0, 1.0))
        with handler:
            pull = -0.5 * (a - 1) ** 2
            pyro.factor("pull", pull.expand(10) if count == 4 else pull)
        sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    a = cavi(Problem(model)).marginal("a")
    assert float(a.mean) == pytest.approx(count / (1 + count))
    assert float(a.variance) == pytest.approx(1 / (1 + count))


def test_the_sprinkler():
    """P(the grass is wet) = 0.44838 (Russell and Norvig), by a joint factor without mean field."""

    def model():
        rain = sample("rain", dist.Bernoulli(0.2)).long()
        sprinkler = sample("sprinkler", dist.Bernoulli(torch.tensor([0.4, 0.01])[rain])).long()
        wet = torch.tensor([[0.0, 0.8], [0.9, 0.99]])[sprinkler, rain]
        sample("wet", dist.Bernoulli(wet), obs=torch.tensor(1.0))

    fit = cavi(Problem(model), joint=[("rain", "sprinkler")])
    assert fit.elbo().value == pytest.approx(math.log(0.44838), abs=1e-12)


def test_discrete_latents_alone():
    """No factor that could be extrapolated; Σ_n log Σ_k w_k Poisson(y_n | r_k)."""
    weights, rates = torch.tensor([0.2, 0.8]), torch.tensor([1.0, 4.0])

    def model():
        with pyro.plate("n", N):
            z = sample("z", dist.Categorical(weights))
            sample("y", dist.Poisson(rates[z]), obs=LABELS.double())

    each = weights.log() + dist.Poisson(rates).log_prob(LABELS.double().unsqueeze(-1))
    fit = cavi(Problem(model))
    assert fit.elbo().value == pytest.approx(float(each.logsumexp(-1).sum()), rel=1e-12)


def test_a_delta_is_a_name_for_a_value():
    def model():
        a = sample("a", dist.Normal(0.0, 1.0))
        b = sample("b", dist.Delta(2 * a))
        sample("y", dist.Normal(b, 1.0), obs=torch.tensor(1.0))

    a = cavi(Problem(model)).marginal("a")
    assert (float(a.mean), float(a.variance)) == pytest.approx((0.4, 0.2))


def line(model, site):
    return next(row for row in explain(Problem(model)).splitlines() if row.startswith(f"{site} "))


def test_explain_squares_what_stands_twice():
    def variances():
        v = sample("v", dist.InverseGamma(torch.ones(3), 1.0).to_event(1))
        with pyro.plate("n", N):
            sample("y", dist.Normal(0.0, v[LABELS].sqrt()), obs=Y)

    def straight_line():
        w = sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        tau = sample("tau", dist.Gamma(1.0, 1.0))
        with pyro.plate("n", N):
            sample("y", dist.Normal(w[0] + w[1] * X[:, 0], tau.rsqrt()), obs=Y)

    assert "1 + 0.5 Σ_n 1[data₁] · y²)" in line(variances, "v")
    assert "E[w[0] w[1]]" in line(straight_line, "tau")


def test_explain_tells_the_cases_of_a_discrete_latent_apart():
    def model():
        p = sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("n", N):
            z = sample("z", dist.Bernoulli(p))
            sample("y", dist.Normal(torch.where(z == 1, 3.0, 0.0), 1.0), obs=Y)

    assert "Beta(1 + Σ_n q(z = 1), 1 + Σ_n q(z = 0))" in line(model, "p")


EFFECTS = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
ERRORS = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)
MARGINAL = torch.distributions.MultivariateNormal(
    torch.zeros(8).double(), 25 + torch.diag(9 + ERRORS**2)
)


def schools():
    mu = sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", 8):
        theta = sample("theta", dist.Normal(mu, 3.0))
        sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)


@pytest.mark.parametrize("centred", [0.0, 0.5, None])
def test_a_site_that_a_handler_decentres_has_the_evidence_of_the_one_written(centred):
    model = poutine.reparam(schools, config={"theta": LocScaleReparam(centred)})
    fit = cavi(Problem(model))
    assert set(fit.mean()) == {"mu", "theta_decentered"}
    assert fit.elbo().value == pytest.approx(float(MARGINAL.log_prob(EFFECTS)), abs=1e-6)


def test_what_is_read_from_a_distribution_is_what_was_written():
    def model(read):
        mu = sample("mu", dist.Normal(0.0, 5.0))
        with pyro.plate("schools", 8):
            around = dist.Normal(mu, 3.0)
            theta = sample("theta", around)
            sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)
            sample("again", dist.Normal(around.loc if read else mu, 2.0), obs=EFFECTS)

    read, written = (cavi(Problem(model, flag)).elbo().value for flag in (True, False))
    assert read == pytest.approx(written, abs=1e-9)


@pytest.mark.parametrize("combined", [False, True])
def test_an_attribute_that_has_no_value_is_refused_by_name(combined):
    def model():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        wide = dist.LogNormal(mu, 1.0)
        sample("x", wide)
        sample("y", dist.Normal(mu + wide.loc if combined else 2 * wide.loc, 1.0), obs=Y[0])

    with pytest.raises(NotConjugateError, match=r"'y': .*'mu'.* attribute of a distribution"):
        cavi(Problem(model), guides={})
