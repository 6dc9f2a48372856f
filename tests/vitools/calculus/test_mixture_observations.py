"""Observations that are mixtures: the wider model with their components, summed out again in the posterior."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import sample
from scipy import special, stats

from vitools import Problem, cavi, explain, load, save
from vitools.errors import NotConjugateError

ROWS = 16
_generator = torch.Generator().manual_seed(5)
X = torch.randn(ROWS, generator=_generator, dtype=torch.float64)
FIRST = torch.arange(ROWS) % 3 == 0
Y = torch.where(FIRST, -2.0, 1.0) + 0.6 * torch.randn(ROWS, generator=_generator).double()
HITS = (torch.where(FIRST, 3 * X, 1 - 3 * X) > 0).double()
COUNTS = torch.poisson((1 + 0.5 * X).exp(), generator=_generator) * (~FIRST)
ODDS = torch.softmax(torch.stack([X, -X], -1), -1)


def mixed(weights, component):
    return dist.MixtureSameFamily(dist.Categorical(weights), component)


def normals(explicit):
    weights = sample("weights", dist.Dirichlet(torch.tensor([1.0, 2.0])))
    loc = sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).to_event(1))
    precision = sample("precision", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("rows", ROWS):
        if explicit:
            z = sample("z", dist.Categorical(weights))
            sample("y", dist.Normal(loc[z], precision[z].rsqrt()), obs=Y)
        else:
            sample("y", mixed(weights, dist.Normal(loc, precision.rsqrt())), obs=Y)


def vectors(explicit):
    loc = sample("loc", dist.Normal(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 2.0).to_event(2))
    data = torch.stack([Y, X], -1)
    with pyro.plate("rows", ROWS):
        if explicit:
            z = sample("z", dist.Categorical(ODDS))
            sample("y", dist.Normal(loc[z], 1.0).to_event(1), obs=data)
        else:
            sample("y", mixed(ODDS, dist.Normal(loc, 1.0).to_event(1)), obs=data)


def logistic(explicit):
    slope = sample("slope", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    level = sample("level", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", ROWS):
        if explicit:
            z = sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
            sample("y", dist.Bernoulli(logits=level + slope[z] * X), obs=HITS)
        else:
            odds = dist.Bernoulli(logits=level + slope * X.unsqueeze(-1))
            sample("y", mixed(torch.tensor([0.4, 0.6]), odds), obs=HITS)


def rates(explicit):
    rate = sample("rate", dist.Gamma(torch.tensor([1.0, 4.0]), 1.0).to_event(1))
    with pyro.plate("rows", ROWS):
        if explicit:
            z = sample("z", dist.Categorical(logits=torch.tensor([0.5, -0.2])))
            sample("y", dist.Poisson(rate[z] * (X.exp() + 1)), obs=COUNTS)
        else:
            weights = dist.Categorical(logits=torch.tensor([0.5, -0.2]))
            component = dist.Poisson(rate * (X.exp() + 1).unsqueeze(-1))
            sample("y", dist.MixtureSameFamily(weights, component), obs=COUNTS)


def heavy_tails(explicit):
    loc = sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).to_event(1))
    precision = sample("precision", dist.Gamma(2.0, 1.0))
    weights = torch.tensor([0.3, 0.7])
    with pyro.plate("rows", ROWS):
        if explicit:
            z = sample("z", dist.Categorical(weights))
            sample("y", dist.StudentT(4.0, loc[z], precision.rsqrt()), obs=Y)
        else:
            sample("y", mixed(weights, dist.StudentT(4.0, loc, precision.rsqrt())), obs=Y)


@pytest.mark.parametrize("model", [normals, vectors, logistic, rates, heavy_tails])
def test_a_mixture_is_the_model_with_its_components_written_out(model):
    options = {"tol": 1e-11, "nested": ()}
    fit = cavi(Problem(model, False), **options)
    written = cavi(Problem(model, True), **options)
    assert fit.bound == pytest.approx(written.bound, abs=1e-10)
    means = fit.mean()
    assert "z" not in means
    assert not any("component" in name for name in means)
    for name, mean in means.items():
        torch.testing.assert_close(mean, written.mean()[name], rtol=1e-8, atol=1e-8)
    for name, sd in fit.sd().items():
        torch.testing.assert_close(sd, written.sd()[name], rtol=1e-8, atol=1e-8)


def assert_weighs_to(fit, evidence, draws=4000):
    """log p(y) by importance weights, whose densities sum over the components, within 4 standard errors."""
    weights = (fit.log_weights(draws) - evidence).exp()
    error = float(weights.std()) / math.sqrt(draws)
    assert abs(float(weights.mean()) - 1) < 4 * error
    assert error < 0.05


def log_integral(log_density, low=-8.0, high=8.0):
    """log of the integral of exp log_density(a, b) by the trapezoid rule."""
    line = np.linspace(low, high, 801)
    a, b = np.meshgrid(line, line, indexing="ij")
    return float(special.logsumexp(log_density(a, b))) + 2 * math.log(line[1] - line[0])


def test_components_are_summed_out_in_the_weights():
    """Two locations, known weights: Σ over the components of every row, then an integral over both."""

    def model():
        loc = sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        with pyro.plate("rows", ROWS):
            sample("y", mixed(torch.tensor([0.3, 0.7]), dist.Normal(loc, 0.8)), obs=Y)

    def log_density(a, b):
        total = stats.norm.logpdf(a, -1, 1) + stats.norm.logpdf(b, 1, 1)
        for y in Y.numpy():
            first, second = (stats.norm.logpdf(y, m, 0.8) for m in (a, b))
            total = total + np.logaddexp(math.log(0.3) + first, math.log(0.7) + second)
        return total

    fit, evidence = cavi(Problem(model)), log_integral(log_density)
    assert evidence - 1.0 < fit.bound < evidence
    assert_weighs_to(fit, evidence)


def test_a_mixture_of_regressions_weighs_to_its_evidence():
    def model():
        slope = sample("slope", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        with pyro.plate("rows", ROWS):
            odds = dist.Bernoulli(logits=0.5 + slope * X.unsqueeze(-1))
            sample("y", mixed(torch.tensor([0.4, 0.6]), odds), obs=HITS)

    def log_density(a, b):
        total = stats.norm.logpdf(a, -1, 1) + stats.norm.logpdf(b, 1, 1)
        for x, hit in zip(X.numpy(), HITS.numpy(), strict=True):
            parts = (special.log_expit((2 * hit - 1) * (0.5 + slope * x)) for slope in (a, b))
            first, second = parts
            total = total + np.logaddexp(math.log(0.4) + first, math.log(0.6) + second)
        return total

    fit, evidence = cavi(Problem(model)), log_integral(log_density)
    assert evidence - 1.0 < fit.bound < evidence
    assert_weighs_to(fit, evidence)


def test_masked_rows_are_left_out():
    kept = torch.arange(ROWS) != 3
    hidden = torch.where(kept, Y, torch.nan)

    def model(y, mask):
        loc = sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        weights = sample("weights", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("rows", len(y)), pyro.poutine.mask(mask=mask):
            sample("y", mixed(weights, dist.Normal(loc, 0.8)), obs=y)

    options = {"tol": 1e-12, "start": {"loc": torch.tensor([-2.0, 1.0])}}  # of two labellings one
    fit = cavi(Problem(model, hidden, kept), **options)
    short = cavi(Problem(model, Y[kept], torch.ones(ROWS - 1, dtype=torch.bool)), **options)
    assert fit.bound == pytest.approx(short.bound, abs=1e-9)


def test_batches_of_rows_end_where_all_rows_do(tmp_path):
    def model(y):  # both labellings are alike
        weights = sample("weights", dist.Dirichlet(torch.ones(2)))
        loc = sample("loc", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        with pyro.plate("rows", len(y)):
            sample("y", mixed(weights, dist.Normal(loc, 0.6)), obs=y)

    problem = Problem(model, Y)
    fit = cavi(problem, batch_rows=8, tol=1e-11)
    assert fit.bound == pytest.approx(cavi(problem, tol=1e-11).bound, abs=1e-7)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    torch.testing.assert_close(again.log_weights(5), fit.log_weights(5))


# ---- an excess of zeros ------------------------------------------------------------------------


def zeros_in_excess(explicit):
    gate = sample("gate", dist.Beta(2.0, 2.0))
    level, slope = sample("level", dist.Normal(0.0, 1.0)), sample("slope", dist.Normal(0.0, 1.0))
    if not explicit:
        with pyro.plate("rows", ROWS):
            rates_of_all = (level + slope * X).exp()
            sample("y", dist.ZeroInflatedPoisson(rates_of_all, gate=gate), obs=COUNTS)
        return
    zero = COUNTS == 0

    def rate(here):
        return (level + slope * X[here]).exp()

    with pyro.plate("zeros", int(zero.sum())):
        z = sample("z", dist.Bernoulli(gate))
        sample("none", dist.Poisson(rate(zero)).mask(z == 0), obs=torch.zeros(int(zero.sum())))
    with pyro.plate("others", int((~zero).sum())):
        sample("open", dist.Bernoulli(gate), obs=torch.zeros(int((~zero).sum())))
        sample("some", dist.Poisson(rate(~zero)), obs=COUNTS[~zero])


def test_only_zeros_may_be_in_excess():
    fit = cavi(Problem(zeros_in_excess, False), tol=1e-12)
    written = cavi(Problem(zeros_in_excess, True), tol=1e-12)
    assert fit.bound == pytest.approx(written.bound, abs=1e-10)
    text = explain(Problem(zeros_in_excess, False))
    assert "excess zero of y: a latent of a wider model, summed out again" in text


def log_inflated(y, log_gate, log_open, log_density):
    """log(g 1[y = 0] + (1 - g) p(y))."""
    inside = log_open + log_density
    return np.logaddexp(log_gate, inside) if y == 0 else inside


def known_gate():
    level, slope = sample("level", dist.Normal(0.0, 1.0)), sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", ROWS):
        rate = (level + slope * X).exp()
        sample("y", dist.ZeroInflatedPoisson(rate, gate=torch.tensor(0.3)), obs=COUNTS)


def known_gate_of(y, eta, x):
    return log_inflated(y, math.log(0.3), math.log(0.7), stats.poisson.logpmf(y, np.exp(eta)))


def curved_gate():
    level, slope = sample("level", dist.Normal(0.0, 1.0)), sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", ROWS):
        eta = level + slope * X
        sample(
            "y", dist.ZeroInflatedNegativeBinomial(3.0, logits=eta, gate_logits=eta - 1), obs=COUNTS
        )


def curved_gate_of(y, eta, x):
    log_p = stats.nbinom.logpmf(y, 3.0, special.expit(-eta))
    return log_inflated(y, special.log_expit(eta - 1), special.log_expit(1 - eta), log_p)


def any_base():
    level, slope = sample("level", dist.Normal(0.0, 1.0)), sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", ROWS):
        base = dist.Binomial(12, logits=level + slope * X)
        sample("y", dist.ZeroInflatedDistribution(base, gate=torch.tensor(0.3)), obs=COUNTS)


def any_base_of(y, eta, x):
    log_p = stats.binom.logpmf(y, 12, special.expit(eta))
    return log_inflated(y, math.log(0.3), math.log(0.7), log_p)


INFLATED = [(known_gate, known_gate_of), (curved_gate, curved_gate_of), (any_base, any_base_of)]


@pytest.mark.parametrize(("model", "of"), INFLATED, ids=lambda f: f.__name__)
def test_inflated_counts_weigh_to_their_evidence(model, of):
    def log_density(a, b):
        prior = stats.norm.logpdf(a) + stats.norm.logpdf(b)
        data = zip(COUNTS.numpy(), X.numpy(), strict=True)
        return prior + sum(of(y, a + b * x, x) for y, x in data)

    fit, evidence = cavi(Problem(model)), log_integral(log_density, -5.0, 5.0)
    assert evidence - 1.0 < fit.bound < evidence
    assert_weighs_to(fit, evidence)


def inflated(rate, gate):
    return dist.ZeroInflatedPoisson(rate, gate=gate)


def inflated_inside(rate, gate):
    return dist.ZeroInflatedDistribution(dist.Poisson(rate), gate=gate)


def inflated_of_some(rate, gate):
    """The same for every row, half of them by way of a mask."""
    return dist.MaskedMixture(X > 0, inflated(rate, gate), inflated_inside(rate, gate))


def inflated_by_hand(rate, gate):
    """A point at zero, or as good as one, beside the counts."""
    rates = torch.stack([torch.full_like(rate, 1e-30), rate], -1)
    return mixed(torch.stack([gate, 1 - gate], -1), dist.Poisson(rates))


@pytest.mark.parametrize("made", [inflated, inflated_inside, inflated_of_some, inflated_by_hand])
def test_two_scalars_of_inflated_counts_are_exact_on_nodes(made):
    def model():
        gate, rate = sample("gate", dist.Beta(2.0, 2.0)), sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", ROWS):
            sample("y", made(rate, gate), obs=COUNTS)

    def log_density(u, v):  # u the logit of the gate, v the log of the rate
        log_gate, log_open, rate = special.log_expit(u), special.log_expit(-u), np.exp(v)
        prior = stats.beta.logpdf(special.expit(u), 2, 2) + log_gate + log_open
        prior = prior + stats.gamma.logpdf(rate, 2) + v
        rows = (
            log_inflated(y, log_gate, log_open, stats.poisson.logpmf(y, rate))
            for y in COUNTS.numpy()
        )
        return prior + sum(rows)

    assert cavi(Problem(model)).bound == pytest.approx(log_integral(log_density), abs=1e-6)


@pytest.mark.parametrize("inside", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_size_and_gate_of_inflated_counts_are_exact_and_three_scalars_are_taken(inside):
    def model(known):
        size, gate = sample("size", dist.Gamma(2.0, 1.0)), sample("gate", dist.Beta(2.0, 2.0))
        p = torch.tensor(0.4, dtype=torch.float64) if known else sample("p", dist.Beta(8.0, 12.0))
        with pyro.plate("rows", ROWS):
            counts = dist.NegativeBinomial(size, probs=p)
            if inside:
                sample("y", dist.ZeroInflatedDistribution(counts, gate=gate), obs=COUNTS)
            else:
                made = dist.ZeroInflatedNegativeBinomial(size, probs=p, gate=gate)
                sample("y", made, obs=COUNTS)

    def log_density(u, v, p):
        log_gate, log_open, size = special.log_expit(u), special.log_expit(-u), np.exp(v)
        prior = stats.beta.logpdf(special.expit(u), 2, 2) + log_gate + log_open
        prior = prior + stats.gamma.logpdf(size, 2) + v
        rows = (
            log_inflated(y, log_gate, log_open, stats.nbinom.logpmf(y, size, 1 - p))
            for y in COUNTS.numpy()
        )
        return prior + sum(rows)

    exact = log_integral(lambda u, v: log_density(u, v, 0.4))
    assert cavi(Problem(model, True)).bound == pytest.approx(exact, abs=1e-6)
    if inside:
        at = np.linspace(0.05, 0.95, 46)
        of_each = [
            log_integral(lambda u, v, p=p: log_density(u, v, p)) + stats.beta.logpdf(p, 8, 12)
            for p in at
        ]
        evidence = float(special.logsumexp(of_each)) + math.log(at[1] - at[0])
        fit = cavi(Problem(model, False))
        assert evidence - 1.5 < fit.bound < evidence
        assert_weighs_to(fit, evidence)


def test_a_masked_mixture_is_two_observations():
    def model(split):
        rates = [sample(name, dist.Gamma(2.0, 1.0)) for name in ("first", "second")]
        if split:
            for name, rate, here in zip(("a", "b"), rates, (X <= 0, X > 0), strict=True):
                with pyro.plate(f"rows {name}", int(here.sum())):
                    sample(name, dist.Poisson(rate), obs=COUNTS[here])
        else:
            with pyro.plate("rows", ROWS):
                parts = map(dist.Poisson, rates)
                sample("y", dist.MaskedMixture(X > 0, *parts), obs=COUNTS)

    both = cavi(Problem(model, False))
    assert both.bound == pytest.approx(cavi(Problem(model, True)).bound, abs=1e-10)


def test_what_is_no_mixture_of_one_latent_a_row_is_refused():
    """A weighted observation is no density of which a latent could be summed out."""

    def model():
        loc = sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        with pyro.plate("rows", ROWS), pyro.poutine.scale(scale=0.5):
            sample("y", mixed(torch.tensor([0.3, 0.7]), dist.Normal(loc, 0.8)), obs=Y)

    assert "component of y" not in explain(Problem(model))
    with pytest.raises(NotConjugateError, match="'y': MixtureSameFamily has no closed-form rule"):
        cavi(Problem(model), guides={})
