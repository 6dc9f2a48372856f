"""The regressions' log joints against scipy's densities, under every way Pyro may run them."""

import functools

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from scipy import stats

from vitools.errors import DataError, OptionError
from vitools.models import bayesian_regression as regression
from vitools.problem import Problem
from vitools.problem.sites import is_subsample

N, D = 7, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
Y = RNG.normal(size=N)
FEATURES, TARGET = torch.from_numpy(X), torch.from_numpy(Y)
OUTCOME = torch.tensor([0, 1, 1, 0, 1, 0, 0])
COUNTS = torch.tensor([0, 3, 1, 0, 7, 2, 1])


def scipy_normal(values):
    w, b, tau = values["weights"], values["intercept"], values["precision"]
    return (
        stats.norm(0, 0.7).logpdf(w).sum()
        + stats.norm(0, 4.0).logpdf(b)
        + stats.gamma(2.0, scale=1 / 3.0).logpdf(tau)
        + stats.norm(X @ w + b, tau**-0.5).logpdf(Y).sum()
    )


def scipy_ard(values):
    w, b, tau, alpha = (values[k] for k in ("weights", "intercept", "precision", "relevance"))
    return (
        stats.gamma(1.5, scale=1 / 0.4).logpdf(alpha).sum()
        + stats.norm(0, alpha**-0.5).logpdf(w).sum()
        + stats.norm(0, 4.0).logpdf(b)
        + stats.gamma(2.0, scale=1 / 3.0).logpdf(tau)
        + stats.norm(X @ w + b, tau**-0.5).logpdf(Y).sum()
    )


def scipy_logistic(values):
    w, b = values["weights"], values["intercept"]
    probability = 1 / (1 + np.exp(-(X @ w + b)))
    return (
        stats.norm(0, 0.7).logpdf(w).sum()
        + stats.norm(0, 4.0).logpdf(b)
        + stats.bernoulli(probability).logpmf(OUTCOME.numpy()).sum()
    )


def scipy_poisson(values):
    w, b = values["weights"], values["intercept"]
    return (
        stats.norm(0, 0.7).logpdf(w).sum()
        + stats.norm(0, 4.0).logpdf(b)
        + stats.poisson(np.exp(X @ w + b)).logpmf(COUNTS.numpy()).sum()
    )


COEFFICIENTS = {"intercept_scale": 4.0}
NOISE = {"noise_shape": 2.0, "noise_rate": 3.0}
SCALE = {"prior_scale": 0.7}
CASES = {
    "normal": (
        regression.model,
        TARGET,
        SCALE | COEFFICIENTS | NOISE,
        ["weights", "intercept", "precision"],
        scipy_normal,
    ),
    "ard": (
        regression.ard,
        TARGET,
        {"relevance_shape": 1.5, "relevance_rate": 0.4} | COEFFICIENTS | NOISE,
        ["weights", "intercept", "precision", "relevance"],
        scipy_ard,
    ),
    "logistic": (
        regression.logistic,
        OUTCOME,
        SCALE | COEFFICIENTS,
        ["weights", "intercept"],
        scipy_logistic,
    ),
    "poisson": (
        regression.poisson,
        COUNTS,
        SCALE | COEFFICIENTS,
        ["weights", "intercept"],
        scipy_poisson,
    ),
}
cases = pytest.mark.parametrize("case", CASES)


def draws(names, count=5, dtype=torch.float64):
    """Values of the latents, stacked in front; positive where they must be."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"weights": (D,), "intercept": (), "precision": (), "relevance": (D,)}
    values = {
        name: torch.randn((count, *shapes[name]), generator=generator, dtype=dtype)
        for name in names
    }
    return {
        name: value.exp() if name in ("precision", "relevance") else value
        for name, value in values.items()
    }


def log_joint(model, values):
    conditioned = poutine.condition(model, data=values)
    return poutine.trace(conditioned).get_trace().log_prob_sum()


@cases
def test_log_joint_is_the_formula(case):
    model, target, options, names, formula = CASES[case]
    values = draws(names)
    bound = functools.partial(model, FEATURES, target, **options)
    for i in range(5):
        one = {name: value[i] for name, value in values.items()}
        expected = formula({name: value.numpy() for name, value in one.items()})
        assert log_joint(bound, one).item() == pytest.approx(expected, rel=1e-12)


@cases
def test_problem_knows_the_sites_and_stacks_draws(case):
    model, target, options, names, formula = CASES[case]
    problem = Problem(model, FEATURES, target, **options)
    assert set(problem.latents) == set(names)
    assert len(problem.observed) == 1
    assert {name: plate.size for name, plate in problem.plates.items()} == {
        "coefficients": D,
        "rows": N,
    }
    values = draws(names)
    expected = [
        formula({name: value[i].numpy() for name, value in values.items()}) for i in range(5)
    ]
    np.testing.assert_allclose(problem.log_joint(values).numpy(), expected, rtol=1e-12)


@cases
def test_float32_stays_float32(case):
    """Though torch's default is float64 here; the plates' own densities, all 0, follow that."""
    model, target, options, names, _ = CASES[case]
    values = {name: value[0] for name, value in draws(names, dtype=torch.float32).items()}
    trace = poutine.trace(
        poutine.condition(model, data=values),
    ).get_trace(FEATURES.float(), target, **options)
    trace.compute_log_prob()
    sites = {
        name: trace.nodes[name] for name in trace.nodes if trace.nodes[name]["type"] == "sample"
    }
    dtypes = {
        name: (site["value"].dtype, site["log_prob"].dtype)
        for name, site in sites.items()
        if not is_subsample(site)
    }
    assert set(names) < set(dtypes)
    assert set(dtypes.values()) == {(torch.float32, torch.float32)}


@cases
def test_prior_draws_have_the_shapes_of_the_data(case):
    model, target, options, *_ = CASES[case]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trace = poutine.trace(model).get_trace(FEATURES, None, **options)
    site = {"logistic": "outcome", "poisson": "counts"}.get(case, "target")
    drawn = trace.nodes[site]
    assert drawn["value"].shape == target.shape
    assert drawn["value"].dtype == torch.float64
    assert not drawn["is_observed"]


@cases
def test_pyro_svi_takes_vectorised_particles(case):
    model, target, options, *_ = CASES[case]
    loss = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(0)
        svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), loss)
        assert np.isfinite(svi.step(FEATURES, target, **options))


@pytest.mark.parametrize(
    ("features", "target", "message"),
    [
        (FEATURES, TARGET[:-1], "features has 7 rows and target has 6"),
        (FEATURES, TARGET[:, None], r"target: expected shape \[7\].*got \[7, 1\].*squeeze"),
        (FEATURES[:, 0], TARGET, r"features: expected shape.*got \[7\].*features\[:, None\]"),
        (FEATURES[:, :0], TARGET, "features: expected shape.*neither of them 0"),
        (FEATURES.long(), TARGET, "features: expected a tensor of float32 or float64.*int64"),
        (X, TARGET, "features: expected a tensor.*ndarray"),
        (FEATURES, Y, "target: expected a tensor, got ndarray"),
    ],
)
def test_layouts_are_refused_by_name(features, target, message):
    with pytest.raises(DataError, match=message):
        regression.model(features, target)


def test_the_variants_name_their_own_argument():
    with pytest.raises(DataError, match="outcome has 2"):
        regression.logistic(FEATURES, OUTCOME[:2])
    with pytest.raises(DataError, match="counts has 2"):
        regression.poisson(FEATURES, COUNTS[:2])


@pytest.mark.parametrize(
    ("model", "option"),
    [
        (regression.model, "prior_scale"),
        (regression.model, "noise_rate"),
        (regression.ard, "relevance_shape"),
        (regression.logistic, "intercept_scale"),
        (regression.poisson, "prior_scale"),
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "wide"])
def test_impossible_options_are_refused_by_name(model, option, value):
    with pytest.raises(OptionError, match=f"{option}: expected a positive finite number"):
        model(FEATURES, None, **{option: value})
