"""The model of each family against densities written by hand, and its source run on its own."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats as st
import torch

from vitools import Problem, cavi, from_formula
from vitools.formula import FAMILIES

RNG = np.random.default_rng(3)
N = 12
DATA = pd.DataFrame(
    {
        "x": RNG.normal(3, 2, N),
        "g": list("abcd") * 3,
        "h": (["u", "v"] * 6),
        "y": RNG.normal(10, 4, N),
        "k": RNG.integers(0, 5, N),
        "n": RNG.integers(5, 9, N),
        "p": RNG.uniform(0.1, 0.9, N),
        "w": RNG.uniform(0.5, 2, N),
        "b": [0, 1, 1] * 4,
        "word": ["no", "yes", "yes"] * 4,
        "level": ["low", "mid", "high"] * 4,
        "g_h": list("mnop") * 3,
        "g:h": RNG.normal(size=N),
    }
)


def predictor(values, suffix=""):
    """Level, slope and the effect of each row's group."""
    group = [list("abcd").index(g) for g in DATA.g]
    own = values[f"1|g{suffix}"][group]
    return values[f"Intercept{suffix}"] + values[f"x{suffix}"] * DATA.x.to_numpy() + own


def expit(eta):
    return scipy.special.expit(eta)


OUTCOMES = {
    ("gaussian", "identity"): ("y", lambda e, v: st.norm.logpdf(DATA.y, e, v["sigma"])),
    ("t", "identity"): ("y", lambda e, v: st.t.logpdf(DATA.y, v["nu"], e, v["sigma"])),
    ("bernoulli", "logit"): ("b", lambda e, v: st.bernoulli.logpmf(DATA.b, expit(e))),
    ("bernoulli", "probit"): ("word", lambda e, v: st.bernoulli.logpmf(DATA.b, st.norm.cdf(e))),
    ("bernoulli", "cloglog"): (
        "b",
        lambda e, v: st.bernoulli.logpmf(DATA.b, -np.expm1(-np.exp(e))),
    ),
    ("binomial", "logit"): ("p(k, n)", lambda e, v: st.binom.logpmf(DATA.k, DATA.n, expit(e))),
    ("binomial", "probit"): (
        "cbind(k, n - k)",
        lambda e, v: st.binom.logpmf(DATA.k, DATA.n, st.norm.cdf(e)),
    ),
    ("binomial", "cloglog"): (
        "k | trials(n)",
        lambda e, v: st.binom.logpmf(DATA.k, DATA.n, -np.expm1(-np.exp(e))),
    ),
    ("poisson", "log"): ("k", lambda e, v: st.poisson.logpmf(DATA.k, np.exp(e))),
    ("negativebinomial", "log"): (
        "k",
        lambda e, v: st.nbinom.logpmf(DATA.k, v["alpha"], v["alpha"] / (v["alpha"] + np.exp(e))),
    ),
    ("gamma", "log"): (
        "w",
        lambda e, v: st.gamma.logpdf(DATA.w, v["alpha"], scale=np.exp(e) / v["alpha"]),
    ),
    ("beta", "logit"): (
        "p",
        lambda e, v: st.beta.logpdf(DATA.p, v["kappa"] * expit(e), v["kappa"] * expit(-e)),
    ),
}
ERRORS = {
    "sigma": lambda s, v: st.halfnorm.logpdf(v, scale=2.5 * s),
    "nu": lambda s, v: st.gamma.logpdf(v, 2, scale=10),
    "kappa": lambda s, v: st.halfcauchy.logpdf(v, scale=10),
}


def prior_density(values, family, centre, s, suffix=""):
    """Of level, slope, effects and their scale, from the formulas of the docs."""
    x = DATA.x.to_numpy()
    level = values[f"Intercept{suffix}"] + values[f"x{suffix}"] * x.mean()
    found = st.norm.logpdf(level, centre, 2.5 * s)
    found += st.norm.logpdf(values[f"x{suffix}"], 0, 2.5 * s / x.std())
    found += st.halfnorm.logpdf(values[f"1|g{suffix}_sigma"], scale=2.5 * s)
    found += st.norm.logpdf(values[f"1|g{suffix}"], 0, values[f"1|g{suffix}_sigma"]).sum()
    for name in FAMILIES[family].parameters:
        if name == "alpha" and family == "negativebinomial":
            found += st.expon.logpdf(values[name], scale=10)
        elif name == "alpha":
            found += st.halfcauchy.logpdf(values[name], scale=10)
        else:
            found += ERRORS[name](s, values[name])
    return found


def drawn(problem):
    """Values near one another, so that roundings of prior scales move densities by little."""
    values = {name: value[0] for name, value in problem.prior(1, seed=4).items()}
    for name in values:
        if name.startswith(("x", "Intercept", "1|g")) and "sigma" not in name:
            values[name] = 0.1 * torch.tanh(values[name])
        elif name.endswith("sigma"):
            values[name] = torch.full_like(values[name], 1.3)
    return values


@pytest.mark.parametrize(("family", "link"), OUTCOMES)
def test_log_joint_is_the_textbooks(family, link):
    response, outcome = OUTCOMES[family, link]
    problem = from_formula(f"{response} ~ x + (1 | g)", DATA, family, link=link)
    values = drawn(problem)
    numbers = {name: value.numpy() for name, value in values.items()}
    centre, s = 0.0, 1.0
    if FAMILIES[family].is_scaled:
        centre, s = DATA.y.mean(), DATA.y.std(ddof=0)
    elif link == "log":
        centre = math.log(DATA[response].mean())
    expected = outcome(predictor(numbers), numbers).sum()
    expected += prior_density(numbers, family, centre, s)
    # scales are rounded to three digits: a hundredth of a nat over all sites
    assert float(problem.log_joint(values)) == pytest.approx(expected, abs=0.03)
    by_hand = outcome(predictor(numbers), numbers)
    rows = problem.pointwise_log_likelihood(values)
    np.testing.assert_allclose(next(iter(rows.values())).numpy(), by_hand, rtol=1e-9, atol=1e-11)


def test_every_family_and_link_is_held_against_its_density():
    of_one_predictor = {
        (name, link)
        for name, family in FAMILIES.items()
        for link in family.links
        if name not in ("cumulative", "categorical")
    }
    assert set(OUTCOMES) == of_one_predictor


def test_cumulative_levels():
    order = pd.Categorical(DATA.level, categories=["low", "mid", "high"], ordered=True)
    problem = from_formula("level ~ x + (1 | g)", DATA.assign(level=order), "cumulative")
    values = problem.prior(1, seed=2)
    threshold = problem.predictive(values)["threshold"][0].numpy()
    numbers = {name: value[0].numpy() for name, value in values.items()}
    eta = predictor(numbers | {"Intercept": 0.0})
    at_most = np.stack([expit(t - eta) for t in threshold], 1)
    mass = np.diff(np.column_stack([np.zeros(N), at_most, np.ones(N)]), axis=1)
    expected = np.log(mass[np.arange(N), order.codes])
    rows = problem.pointwise_log_likelihood(values)["level"][0]
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-8)


def test_categorical_levels():
    problem = from_formula("level ~ x + (1 | g)", DATA, "categorical")
    assert "levels in order: high, low, mid" in str(problem.priors)
    values = problem.prior(1, seed=2)
    numbers = {name: value[0].numpy() for name, value in values.items()}
    eta = np.stack([np.zeros(N), predictor(numbers, "[low]"), predictor(numbers, "[mid]")], 1)
    code = [["high", "low", "mid"].index(v) for v in DATA.level]
    expected = scipy.special.log_softmax(eta, 1)[np.arange(N), code]
    rows = problem.pointwise_log_likelihood(values)["level"][0]
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-9)


def test_correlated_effects_have_huang_and_wands_prior():
    problem = from_formula("y ~ x + (x | g)", DATA)
    values = {name: value[0] for name, value in problem.prior(1, seed=1).items()}
    scales = 2.5 * DATA.y.std(ddof=0) / np.array([1.0, DATA.x.std(ddof=0)])
    precision = values["1 + x|g_precision"].numpy()
    rate = values["1 + x|g_rate"].numpy()
    expected = st.gamma.logpdf(rate, 0.5, scale=scales**2).sum()
    expected += st.wishart.logpdf(precision, 3, np.linalg.inv(np.diag(4 * rate)))
    expected += st.multivariate_normal.logpdf(
        values["1 + x|g"].numpy(), np.zeros(2), np.linalg.inv(precision)
    ).sum()
    group = [list("abcd").index(g) for g in DATA.g]
    effects = values["1 + x|g"].numpy()[group]
    x = DATA.x.to_numpy()
    eta = values["Intercept"].item() + values["x"].item() * x + effects[:, 0] + effects[:, 1] * x
    sigma = values["sigma"].item()
    expected += st.norm.logpdf(DATA.y, eta, sigma).sum()
    level = values["Intercept"].item() + values["x"].item() * x.mean()
    expected += st.norm.logpdf(level, DATA.y.mean(), scales[0])
    expected += st.norm.logpdf(values["x"].item(), 0, scales[1])
    expected += st.halfnorm.logpdf(sigma, scale=scales[0])
    assert float(problem.log_joint(values)) == pytest.approx(expected, abs=0.05)
    derived = problem.predictive({name: value[None] for name, value in values.items()})
    covariance = np.linalg.inv(precision)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(derived["1 + x|g_sigma"][0].numpy(), sd)
    np.testing.assert_allclose(
        derived["1 + x|g_corr"][0].numpy(), covariance / np.outer(sd, sd), atol=1e-9
    )


def test_weights_count_rows_and_precisions_divide_variances():
    data = DATA.assign(w=[1, 2, 3] * 4)
    weighted = from_formula("weighted(y, w) ~ x", data)
    plain = from_formula("y ~ x", data)
    values = {"x": torch.tensor(0.3), "Intercept": torch.tensor(9.0), "sigma": torch.tensor(3.0)}
    rows = st.norm.logpdf(data.y, 9 + 0.3 * data.x, 3.0)
    more = float(weighted.log_joint(values)) - float(plain.log_joint(values))
    assert more == pytest.approx(((data.w - 1) * rows).sum(), rel=1e-9)
    precise = from_formula("precise(y, w) ~ x", data)
    other = st.norm.logpdf(data.y, 9 + 0.3 * data.x, 3.0 / np.sqrt(data.w))
    more = float(precise.log_joint(values)) - float(plain.log_joint(values))
    assert more == pytest.approx((other - rows).sum(), rel=1e-9)


SOURCES = [
    ("y ~ (1 | g/h) + (1 | g_h) + `g:h`", "gaussian"),
    ("y ~ x * h + (x | g)", "gaussian"),
    ("weighted(p(k, n), w) ~ x + offset(w) + (1 | g) + (1 | h)", "binomial"),
    ("k ~ x + (x || g/h)", "negativebinomial"),
    ("precise(y, w) ~ 0 + g + poly(x, 2)", "t"),
    ("level ~ x + (x | g)", "categorical"),
    ("k ~ x + h + (1 | g)", "cumulative"),
]


@pytest.mark.usefixtures("float32_by_default")
@pytest.mark.parametrize(("formula", "family"), SOURCES)
def test_the_source_runs_on_its_own_and_is_the_model(formula, family):
    problem = from_formula(formula, DATA, family)
    namespace = {"__name__": "alone"}
    exec(problem.source, namespace)
    alone = Problem(namespace["model"], **problem.arguments)
    draws = problem.prior(3, seed=1)
    assert problem.dtype is torch.float64
    torch.testing.assert_close(alone.log_joint(draws), problem.log_joint(draws), rtol=0, atol=0)
    assert max(map(len, problem.source.splitlines())) < 160


@pytest.mark.usefixtures("float32_by_default")
def test_level_and_slopes_are_one_gaussian_block_whatever_the_unit():
    """Moving and scaling a column changes its coefficient and the intercept, and nothing else."""
    fits = {}
    for name, x in {"plain": DATA.x, "moved": 1000 + 0.01 * DATA.x}.items():
        problem = from_formula("y ~ x + h", DATA.assign(x=x))
        fits[name] = cavi(problem, nested=())
    plain, moved = fits["plain"], fits["moved"]
    assert {frozenset(f.sites) for f in plain.factors} == {
        frozenset({"x", "h", "Intercept"}),
        frozenset({"sigma"}),
    }
    slope = plain.mean()["x"] * 100
    sd = plain.sd()["x"] * 100
    assert abs(moved.mean()["x"] - slope) < 0.01 * sd  # prior scales are rounded
    assert abs(moved.sd()["x"] / sd - 1) < 0.01
    assert abs(moved.mean()["h"] - plain.mean()["h"]).item() < 0.01 * plain.sd()["h"].item()
    at_zero = moved.mean()["Intercept"] + 1000 * moved.mean()["x"]
    assert abs(at_zero - plain.mean()["Intercept"]) < 0.01 * plain.sd()["Intercept"]


def test_without_an_intercept_columns_carry_the_level():
    far = DATA.assign(y=1e4 + DATA.y)
    fit = cavi(from_formula("y ~ 0 + h", far), nested=())
    means = far.groupby("h").y.mean().to_numpy()
    assert np.abs(fit.mean()["h"].numpy() - means).max() < 0.01 * fit.sd()["h"].min().item()


def test_words_of_the_data_are_no_code():
    words = ["a", 'b\n    raise SystemExit("run")', '"c" \\']
    data = pd.DataFrame({"x\ny": np.arange(6.0), "g": words * 2, "h": ["u", "v"] * 3})
    problem = from_formula("g ~ `x\ny` + h", data, "categorical")
    assert f"Intercept[{words[1]}]" in problem.latents
    assert problem.coords["h_level"] == ["v"]


def test_new_rows_need_not_have_the_level_that_counts_as_one():
    problem = from_formula("word[yes] ~ x", DATA, "bernoulli")
    new = problem.at({"x": [1.0, 2.0], "word": ["no", "no"]})
    assert new.arguments["y"].tolist() == [0.0, 0.0]
