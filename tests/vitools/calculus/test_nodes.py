"""Scalars on nodes: beside a predictor, and two with one joint table, against integrals by SciPy."""

import csv
import math
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from scipy.special import expit

from vitools import Problem, cavi, explain, load, nuts, save
from vitools.distributions.free_form.nodes import Nodes
from vitools.errors import NotConjugateError, NumericalError
from vitools.models.physics import oscillator

ROWS = 24
RNG = np.random.default_rng(3)
X = np.column_stack([np.ones(ROWS), RNG.standard_normal(ROWS)])
ETA = X @ np.array([0.5, 0.7])
COUNTS = RNG.negative_binomial(3.0, 3.0 / (3.0 + np.exp(ETA))).astype(float)
TIMES = np.exp(ETA) * RNG.weibull(1.7, ROWS)
SHARES = RNG.beta(8 * expit(ETA), 8 * expit(-ETA)).clip(1e-3, 1 - 1e-3)
HEAVY = ETA + 0.5 * RNG.standard_t(4.0, ROWS)
DESIGN = torch.tensor(X)


def coefficients():
    return pyro.sample("b", dist.Normal(torch.zeros(2).double(), 2.0).to_event(1))


def observe(distribution, values):
    with pyro.plate("rows", ROWS):
        pyro.sample("y", distribution, obs=torch.tensor(values))


def scale(prior=2.0):
    return pyro.sample("s", dist.HalfNormal(torch.tensor(prior).double()))


# ---- one scalar beside a predictor -----------------------------------------------------------


def negative_binomial():
    b, s = coefficients(), scale()
    observe(dist.NegativeBinomial(s, logits=DESIGN @ b - s.log()), COUNTS)


def gamma_poisson():
    b, s = coefficients(), scale()
    observe(dist.GammaPoisson(1 / s, 1 / (s * (DESIGN @ b).exp())), COUNTS)


def log_dispersion():
    b = coefficients()
    s = pyro.sample("s", dist.Normal(torch.tensor(0.0).double(), 1.0))
    observe(dist.GammaPoisson(s.exp(), (s - DESIGN @ b).exp()), COUNTS)


def beta():
    b, s = coefficients(), scale(20.0)
    mean = torch.sigmoid(DESIGN @ b)
    observe(dist.Beta(mean * s, (1 - mean) * s), SHARES)


def weibull():
    b, s = coefficients(), scale()
    observe(dist.Weibull((DESIGN @ b).exp(), s), TIMES)


def gumbel():
    b, s = coefficients(), scale()
    observe(dist.Gumbel(DESIGN @ b, s), HEAVY)


def logistic():
    b, s = coefficients(), scale()
    observe(dist.Logistic(DESIGN @ b, s), HEAVY)


def student():
    b, s = coefficients(), scale()
    observe(dist.StudentT(4.0, DESIGN @ b, s), HEAVY)


def nb(r, eta):
    return st.nbinom.logpmf(COUNTS[:, None], r, r / (r + np.exp(eta)))


def half_normal(s, prior=2.0):
    return st.halfnorm.logpdf(s, scale=prior)


def beta_density(s, eta):
    return st.beta.logpdf(SHARES[:, None], expit(eta) * s, expit(-eta) * s)


# log p(y | eta, s) for eta [rows, nodes]; log p(s)
REGRESSIONS = {
    "negative binomial": (negative_binomial, nb, half_normal),
    "gamma poisson": (gamma_poisson, lambda s, eta: nb(1 / s, eta), half_normal),
    "log dispersion": (log_dispersion, lambda s, eta: nb(np.exp(s), eta), st.norm.logpdf),
    "beta": (beta, beta_density, lambda s: half_normal(s, 20.0)),
    "weibull": (
        weibull,
        lambda s, eta: st.weibull_min.logpdf(TIMES[:, None], s, scale=np.exp(eta)),
        half_normal,
    ),
    "gumbel": (gumbel, lambda s, eta: st.gumbel_r.logpdf(HEAVY[:, None], eta, s), half_normal),
    "logistic": (
        logistic,
        lambda s, eta: st.logistic.logpdf(HEAVY[:, None], eta, s),
        half_normal,
    ),
    "student": (student, lambda s, eta: st.t.logpdf(HEAVY[:, None], 4.0, eta, s), half_normal),
}
Z, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def expected_density(density, s, mean, covariance):
    """Σ_n E log p(y_n | eta_n, s) for b ~ N(mean, covariance)."""
    m, sd = X @ mean, np.sqrt(np.einsum("nd,de,ne->n", X, covariance, X))
    return float((density(s, m[:, None] + sd[:, None] * Z) @ WEIGHTS).sum())


@pytest.mark.parametrize("name", REGRESSIONS)
def test_bound_and_optimality_beside_a_predictor(name):
    """The bound is log ∫ p(s) exp E log p(y | s) ds - KL(b), and no b near is better."""
    model, density, log_prior = REGRESSIONS[name]
    fit = cavi(Problem(model), tol=1e-12)
    q = fit.marginal("b")
    mean, covariance = q.mean.numpy(), q.covariance_matrix.numpy()
    s, _, weights = (x.numpy() for x in fit.marginal("s").quadrature())
    own = fit.marginal("s").log_prob(torch.tensor(s)).numpy()
    keep = weights > 1e-12

    def log_normaliser(mean, covariance):
        """The same for every node: log p(s) + E log p(y | s) - log q(s) - KL."""
        kl = 0.5 * (
            (np.trace(covariance) + mean @ mean) / 4
            - 2
            + 2 * math.log(4)
            - np.linalg.slogdet(covariance)[1]
        )
        found = [log_prior(x) + expected_density(density, x, mean, covariance) for x in s[keep]]
        return np.array(found) - kl

    told = log_normaliser(mean, covariance)
    near = weights[keep] > 1e-9
    np.testing.assert_allclose((told - own[keep])[near], fit.bound, atol=2e-7)
    assert fit.bound_error == 0
    assert weights @ s == pytest.approx(float(fit.mean()["s"]), rel=1e-8)

    def bound(mean, covariance):
        """With q(s) at its best."""
        terms = log_normaliser(mean, covariance) - own[keep]
        top = terms.max()
        return top + math.log((weights[keep] * np.exp(terms - top)).sum())

    best = bound(mean, covariance)
    assert best == pytest.approx(fit.bound, abs=1e-8)
    root = np.linalg.cholesky(covariance)
    for direction in np.eye(2):
        step = 1e-3 * root @ direction
        slope = (bound(mean + step, covariance) - bound(mean - step, covariance)) / 2e-3
        assert abs(slope) < 1e-5
        turned = root @ np.outer(direction, direction) @ root.T
        up, down = (bound(mean, covariance + x * turned) for x in (1e-3, -1e-3))
        assert abs(up - down) / 2e-3 < 1e-5


# ---- two scalars: the joint table is the posterior -------------------------------------------


def two_of(distribution, values, first, second):
    def model():
        a = pyro.sample("a", first)
        b = pyro.sample("b", second)
        observe(distribution(a, b), values)

    return model


A, B = dist.HalfNormal(torch.tensor(2.0).double()), dist.Gamma(torch.tensor(2.0).double(), 0.5)
LOG_A, LOG_B = st.halfnorm(scale=2).logpdf, st.gamma(2, scale=2).logpdf
PAIRS = {
    "weibull": (two_of(dist.Weibull, TIMES, A, B), lambda a, b: st.weibull_min(b, scale=a), TIMES),
    "beta": (two_of(dist.Beta, SHARES, A, B), lambda a, b: st.beta(a, b), SHARES),
    "negative binomial": (
        two_of(lambda a, b: dist.GammaPoisson(b, b / a), COUNTS, A, B),
        lambda a, b: st.nbinom(b, b / (b + a)),
        COUNTS,
    ),
}


def truth(name):
    """Evidence, means and covariance by the trapezoid rule in the logarithms of both."""
    _, of, values = PAIRS[name]
    u, v = np.linspace(-6, 4, 401), np.linspace(-6, 5, 441)
    a, b = np.meshgrid(np.exp(u), np.exp(v), indexing="ij")
    logs = LOG_A(a) + LOG_B(b) + np.log(a) + np.log(b)
    for y in values:
        made = of(a, b)
        with np.errstate(over="ignore"):
            logs += (made.logpmf if hasattr(made.dist, "logpmf") else made.logpdf)(y)
    top = logs.max()
    q = np.exp(logs - top)
    evidence = top + math.log(q.sum() * (u[1] - u[0]) * (v[1] - v[0]))
    q /= q.sum()
    mean = np.array([(q * a).sum(), (q * b).sum()])
    apart = np.stack([a - mean[0], b - mean[1]])
    return evidence, mean, np.einsum("iuv,juv,uv->ij", apart, apart, q)


@pytest.mark.parametrize("name", PAIRS)
def test_two_scalars_are_their_posterior(name, tmp_path):
    problem = Problem(PAIRS[name][0])
    fit = cavi(problem)
    evidence, mean, covariance = truth(name)
    assert fit.bound == pytest.approx(evidence, abs=1e-7)
    assert fit.bound_error == 0
    found = [float(fit.mean()[x]) for x in "ab"], [float(fit.sd()[x]) for x in "ab"]
    np.testing.assert_allclose(found[0], mean, rtol=1e-7)
    np.testing.assert_allclose(found[1], np.sqrt(np.diag(covariance)), rtol=1e-6)
    weights = fit.log_weights(500)
    assert float(weights.std()) < 1e-5  # the density of every draw is the posterior's
    assert float(weights.mean()) == pytest.approx(evidence, abs=1e-5)
    draws = fit.sample(20_000)
    a, b = draws["a"].numpy(), draws["b"].numpy()
    correlation = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(correlation, abs=4 / math.sqrt(20_000))
    one = fit.marginal("a")
    assert float(one.cdf(one.icdf(torch.tensor(0.3).double()))) == pytest.approx(0.3, abs=1e-10)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    few = fit.sample(5)
    torch.testing.assert_close(again.log_prob(few), fit.log_prob(few), rtol=1e-12, atol=1e-12)
    assert again.mean() == fit.mean()


@pytest.mark.parametrize("rows", [3, 6])
def test_few_waiting_times_have_draws_as_their_moments(rows):
    """Where log q falls to -1e40 and less within the nodes, between which it is a polynomial."""

    def model():
        a = pyro.sample("a", dist.HalfCauchy(torch.tensor(1.0).double()))
        b = pyro.sample("b", dist.HalfNormal(torch.tensor(3.0).double()))
        with pyro.plate("rows", rows):
            times = torch.tensor([0.73, 1.07, 2.33, 1.01, 0.55, 0.97]).double()[:rows]
            pyro.sample("y", dist.Weibull(a, b), obs=times)

    fit = cavi(Problem(model))
    drawn = fit.sample(4000)["b"]
    assert float(drawn.mean()) == pytest.approx(
        float(fit.mean()["b"]), abs=5 * float(fit.sd()["b"]) / math.sqrt(4000)
    )
    off = (fit.log_weights(1000) - fit.bound).abs()  # the density of every draw is the posterior's
    assert float(off.max()) < 0.01
    assert float(off.median()) < 1e-4


def test_a_pair_for_every_element_of_a_plate():
    def model():
        with pyro.plate("groups", 2):
            a, b = pyro.sample("a", A), pyro.sample("b", B)
        groups = torch.arange(ROWS) % 2
        observe(dist.Weibull(a[groups], b[groups]), TIMES)

    fit = cavi(Problem(model))
    alone = []
    for g in (0, 1):

        def part(g=g):
            a, b = pyro.sample("a", A), pyro.sample("b", B)
            with pyro.plate("rows", ROWS // 2):
                pyro.sample("y", dist.Weibull(a, b), obs=torch.tensor(TIMES[g::2]))

        alone.append(cavi(Problem(part)))
    assert fit.bound == pytest.approx(sum(other.bound for other in alone), abs=1e-8)
    for name in "ab":
        expected = torch.stack([other.mean()[name] for other in alone])
        torch.testing.assert_close(fit.mean()[name], expected, rtol=1e-6, atol=0)
    drawn = fit.sample(7)
    total = sum(
        other.log_prob({k: v[:, g] for k, v in drawn.items()}) for g, other in enumerate(alone)
    )
    torch.testing.assert_close(fit.log_prob(drawn), total, rtol=1e-4, atol=1e-4)
    assert float(fit.log_weights(200).std()) < 1e-4


# ---- both at once, scales of scales, plates --------------------------------------------------


def unknown_tails():
    b, s = coefficients(), scale()
    nu = pyro.sample("nu", dist.Gamma(torch.tensor(2.0).double(), 0.1))
    observe(dist.StudentT(nu, DESIGN @ b, s), HEAVY)


def test_two_scalars_beside_a_predictor():
    """E log p at nodes of (nu, s) is what SciPy has there, up to the table's normaliser."""
    fit = cavi(Problem(unknown_tails), tol=1e-12)
    q = fit.marginal("b")
    mean, covariance = q.mean.numpy(), q.covariance_matrix.numpy()
    kl = 0.5 * (
        (np.trace(covariance) + mean @ mean) / 4
        - 2
        + 2 * math.log(4)
        - np.linalg.slogdet(covariance)[1]
    )
    draws = {k: v for k, v in fit.sample(40).items() if k != "b"}
    for nu, s in zip(draws["nu"].tolist(), draws["s"].tolist(), strict=True):
        both = torch.tensor([s, nu]).double()
        pair = next(f for f in fit.factors if f.is_block)
        value = both if pair.sites == ("s", "nu") else both.flip(0)
        told = expected_density(
            lambda x, eta, nu=nu: st.t.logpdf(HEAVY[:, None], nu, eta, x), s, mean, covariance
        )
        told += half_normal(s) + st.gamma.logpdf(nu, 2, scale=10.0) - kl
        assert told - float(pair.distribution.log_prob(value)) == pytest.approx(
            fit.bound,
            abs=1e-4,  # what the polynomials between the nodes leave
        )
    text = explain(Problem(unknown_tails))
    assert "joint free form on nodes" in text
    assert f"{ROWS} × 625 expectations a sweep" in text


def test_a_scale_whose_scale_is_latent():
    def model():
        m = pyro.sample("m", dist.Normal(torch.tensor(0.0).double(), 5.0))
        wide = pyro.sample("wide", dist.HalfNormal(torch.tensor(1.0).double()))
        s = pyro.sample("s", dist.HalfCauchy(wide))
        observe(dist.Normal(m, s), HEAVY)

    def known():
        m = pyro.sample("m", dist.Normal(torch.tensor(0.0).double(), 5.0))
        s = pyro.sample("s", MARGINAL)
        observe(dist.Normal(m, s), HEAVY)

    class Marginal(dist.HalfCauchy):
        """∫ HalfCauchy(s | w) HalfNormal(w | 1) dw."""

        def log_prob(self, value):
            w = torch.linspace(-30, 4, 2001).double().exp().reshape(-1, *[1] * value.dim())
            inner = dist.HalfCauchy(w).log_prob(value) + dist.HalfNormal(1.0).log_prob(w) + w.log()
            return inner.logsumexp(0) + math.log(34 / 2000)

    MARGINAL = Marginal(torch.tensor(1.0).double())
    fit, other = cavi(Problem(model), tol=1e-12), cavi(Problem(known), tol=1e-12)
    assert fit.bound == pytest.approx(other.bound, abs=1e-7)
    for name in ("m", "s"):
        assert float(fit.mean()[name]) == pytest.approx(float(other.mean()[name]), rel=1e-7)
        assert float(fit.sd()[name]) == pytest.approx(float(other.sd()[name]), rel=1e-6)


def test_a_dispersion_for_every_group():
    def model():
        b = coefficients()
        with pyro.plate("groups", 3):
            s = pyro.sample("s", B)
        each = s[torch.arange(ROWS) % 3]
        observe(dist.GammaPoisson(each, each / (DESIGN @ b).exp()), COUNTS)

    fit = cavi(Problem(model), tol=1e-12)
    q = fit.marginal("b")
    mean, covariance = q.mean.numpy(), q.covariance_matrix.numpy()
    m, sd = X @ mean, np.sqrt(np.einsum("nd,de,ne->n", X, covariance, X))
    eta = m[:, None] + sd[:, None] * Z
    for g in range(3):
        s = np.exp(np.linspace(-12, 12, 2401))
        rows = slice(g, None, 3)
        told = np.array(
            [
                (
                    st.nbinom.logpmf(COUNTS[rows, None], x, x / (x + np.exp(eta[rows]))) @ WEIGHTS
                ).sum()
                for x in s
            ]
        )
        q_s = np.exp(told + LOG_B(s) + np.log(s) - (told + LOG_B(s) + np.log(s)).max())
        q_s /= q_s.sum()
        assert float(fit.mean()["s"][g]) == pytest.approx((q_s * s).sum(), rel=1e-7)


def test_a_moment_that_does_not_exist_is_infinite():
    """As the dispersion grows the likelihood tends to Poisson's, so q falls like the prior's s^-2."""

    def model():
        b = coefficients()
        s = pyro.sample("s", dist.HalfCauchy(torch.tensor(2.0).double()))
        observe(dist.GammaPoisson(s, s / (DESIGN @ b).exp()), COUNTS)

    fit = cavi(Problem(model))
    assert math.isinf(float(fit.mean()["s"]))
    assert math.isfinite(float(fit.marginal("s").icdf(torch.tensor(0.9).double())))


def test_restarts_begin_at_the_same_nodes_and_agree():
    fit = cavi(Problem(negative_binomial), restarts=2, tol=1e-10)
    assert len(fit.restart_bounds) == 2
    assert fit.bound == pytest.approx(cavi(Problem(negative_binomial), tol=1e-10).bound, abs=1e-7)


def test_a_start_names_a_scalar_on_nodes():
    problem = Problem(negative_binomial)
    fit = cavi(problem)
    again = cavi(problem, start={"s": torch.tensor(1.0).double(), "b": torch.zeros(2).double()})
    assert again.bound == pytest.approx(fit.bound, abs=1e-6)
    assert cavi(problem, start=fit).bound == pytest.approx(fit.bound, abs=1e-6)


def test_what_nodes_do_not_mend_is_refused_as_before():
    def model():
        w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        s = scale()
        observe(dist.StudentT(4.0, torch.tanh((DESIGN @ w) * (DESIGN @ w)), s), HEAVY)

    with pytest.raises(NotConjugateError, match="'y'"):
        cavi(Problem(model))


def test_an_improper_posterior_is_told():
    """A flat prior on the dispersion of counts that are as even as Poisson's has no posterior."""

    def model():
        b = coefficients()
        s = pyro.sample(
            "s", dist.ImproperUniform(dist.constraints.positive, torch.Size(), torch.Size())
        )
        observe(dist.GammaPoisson(s, s / (DESIGN @ b).exp()), COUNTS)

    with pytest.raises(NumericalError, match="'s'"):
        cavi(Problem(model))


def test_peaks_between_the_nodes_of_a_first_look_are_all_found():
    """Three peaks of sd .003 at steps of .5, some steps apart and none at a node: the mass of all."""
    places, weights = (
        torch.tensor([-3.22, 0.26, 3.9]).double(),
        torch.tensor([0.2, 0.7, 0.1]).double(),
    )

    def log_density(u):
        return (weights.log() - (u.unsqueeze(-1) - places) ** 2 / (2 * 0.003**2)).logsumexp(-1)

    free = torch.tensor(math.inf).double()
    nodes = Nodes(-free, free, torch.tensor(-10.0).double(), torch.tensor(0.5).double(), 41)
    for _ in range(30):
        found = log_density(nodes.coordinates)
        moved = nodes.moved(found, found - found.max(), 25)
        if moved is None:
            break
        nodes = moved
    mass = log_density(nodes.coordinates).exp() * nodes.step
    exact = math.sqrt(2 * math.pi) * 0.003
    assert float(mass.sum()) == pytest.approx(exact, rel=1e-2)
    for place, weight in zip(places, weights, strict=True):
        near = (nodes.coordinates - place).abs() < 0.1
        assert float(mass[near].sum()) == pytest.approx(float(weight) * exact, rel=0.1)


@pytest.mark.slow
def test_two_scalars_of_several_narrow_modes_have_all_of_them():
    """Frequency and damping of an oscillator seen at equal intervals: two modes, against a finer grid."""
    looks = oscillator.simulate(seed=0)
    grid = oscillator.posterior_on_grid(looks.time, looks.y)
    fit = cavi(Problem(oscillator.model, looks.time, looks.y))
    assert fit.bound == pytest.approx(grid.log_evidence, abs=1e-3)
    for name, (mean, sd) in grid.moments().items():
        assert float(fit.mean()[name]) == pytest.approx(mean, abs=1e-3 * sd)
        assert float(fit.sd()[name]) == pytest.approx(sd, rel=1e-3)


@pytest.mark.slow
def test_more_modes_than_nodes_hold_are_said_to_be_that():
    t = torch.tensor([1.0, 2, 3, 4, 5, 6.5, 8]).double()
    noise = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model():
        w = pyro.sample("w", dist.Uniform(torch.zeros(()).double(), 20.0))
        s = scale(1.0)
        with pyro.plate("looks", len(t)):
            pyro.sample("y", dist.Normal((w * t).sin(), s), obs=(3.1 * t).sin() + 0.2 * noise)

    with pytest.raises(NumericalError, match=r"'w': q has \d+ modes far apart for their width"):
        cavi(Problem(model))


@pytest.mark.parametrize("is_masked", [False, True])
def test_data_whose_support_moves_are_refused_by_the_reason(is_masked):
    """A density that breaks off at a latent is no smooth function of it: no quadrature, and no claim of more."""

    def model(y):
        t = pyro.sample("t", dist.Gamma(2.0, 1.0))
        mask = torch.tensor([True, True, not is_masked, True])
        with pyro.plate("n", len(y)), pyro.poutine.mask(mask=mask):
            pyro.sample("y", dist.Uniform(0.0, t), obs=y)

    with pytest.raises(NotConjugateError, match="an upper bound that depends on a latent"):
        cavi(Problem(model, torch.tensor([0.5, 0.7, 0.9, 1.2], dtype=torch.float64)))


EPIL = Path(__file__).resolve().parents[4] / "shared" / "data" / "epil" / "epil.csv"


@pytest.mark.slow
@pytest.mark.skipif(not EPIL.exists(), reason="needs the epil data")
def test_epilepsy_counts_against_long_nuts():
    """Negative binomial counts with effects of 59 subjects, their scale nested, the dispersion on nodes."""
    with EPIL.open() as file:
        rows = list(csv.DictReader(file))
    column = {k: torch.tensor([float(r[k]) for r in rows]) for k in ("y", "lbase", "lage", "V4")}
    subject = torch.tensor([int(r["subject"]) - 1 for r in rows])
    treated = torch.tensor([float(r["trt"] == "progabide") for r in rows])
    base = column["lbase"]
    parts = [torch.ones(len(rows)), treated, base, column["lage"], column["V4"], treated * base]
    design = torch.stack(parts, 1).double()

    def model():
        b = pyro.sample("b", dist.Normal(torch.zeros(6).double(), 2.0).to_event(1))
        tau = pyro.sample("tau", dist.HalfNormal(torch.tensor(1.0).double()))
        r = pyro.sample("r", dist.Gamma(torch.tensor(2.0).double(), 0.2))
        with pyro.plate("subjects", 59):
            u = pyro.sample("u", dist.Normal(0.0, tau))
        logits = design @ b + u[subject] - r.log()
        with pyro.plate("visits", len(rows)):
            pyro.sample("y", dist.NegativeBinomial(r, logits=logits), obs=column["y"].double())

    problem = Problem(model)
    fit, draws = cavi(problem, nested=["tau"]), nuts(problem, num_samples=1500)
    for name, narrow in (("b", 0.95), ("tau", 0.93), ("r", 0.8)):  # r does not know of the effects
        apart = (fit.mean()[name] - draws.mean()[name]) / draws.sd()[name]
        assert float(apart.abs().max()) < 0.1, name
        ratio = fit.sd()[name] / draws.sd()[name]
        assert narrow < float(ratio.min()), name
        assert float(ratio.max()) < 1.08, name
