"""Priors and data of different number types, through every engine: one answer, none refused.

y_n ~ N(μ, 1) with μ ~ N(0, 1): the posterior of μ is N(Σ y / (n + 1), 1 / (n + 1)); τ, of no
consequence to the data, puts a constrained site of another type beside it.
"""

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, dadvi, exact, laplace, nuts, svi
from vitools.graphs.functional import functional_graph, refuse_other_numbers
from vitools.guides import AutoMultivariate

F32, F64, INT = torch.float32, torch.float64, torch.int64
TYPES = [(F32, F32, F64), (F64, F32, F32), (F32, F32, INT)]
"""Of μ, of τ and of the data."""

Y = torch.tensor([-1, 0, 3, 2, 2, -2, 1, 4, 0, 1, 2, 5])
MEAN, SD = float(Y.sum()) / 13, 1 / math.sqrt(13)


def problem_of(mu_type, tau_type, data_type):
    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=mu_type), 1.0))
        pyro.sample("tau", dist.Gamma(torch.tensor(2.0, dtype=tau_type), 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return Problem(model, Y.to(data_type))


@pytest.mark.parametrize(("types", "compile"), [(t, True) for t in TYPES] + [(TYPES[0], False)])
def test_nuts_without_nutpie(types, compile, monkeypatch):
    monkeypatch.setitem(sys.modules, "nutpie", None)
    size = {"num_samples": 100 if compile else 20, "num_warmup": 50, "num_chains": 1}
    fit = nuts(problem_of(*types), **size, compile=compile)
    assert (fit.draws["mu"].dtype, fit.draws["tau"].dtype) == types[:2]
    error = SD / math.sqrt(fit.ess["mu"])
    assert float(fit.mean()["mu"]) == pytest.approx(MEAN, abs=4 * error)


def test_nuts_with_nutpie():
    pytest.importorskip("nutpie")
    options = {"num_samples": 100, "num_warmup": 50, "num_chains": 1, "sampler": "nutpie"}
    fit = nuts(problem_of(F32, F32, F64), **options, compile=True)
    error = SD / math.sqrt(fit.ess["mu"])
    assert float(fit.mean()["mu"]) == pytest.approx(MEAN, abs=4 * error)


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("engine", [laplace, dadvi, exact])
def test_engines_over_the_reals(types, engine):
    fit = engine(problem_of(*types))
    # all three are exact of a Gaussian, to the tolerance of their searches
    assert float(fit.mean()["mu"]) == pytest.approx(MEAN, abs=1e-4)
    values = fit.sample(5)
    assert (values["mu"].dtype, values["tau"].dtype) == types[:2]
    assert torch.isfinite(fit.log_prob(values)).all()


@pytest.mark.parametrize("types", TYPES)
def test_svi(types):
    fit = svi(problem_of(*types), AutoMultivariate, compile=True)
    assert fit.status is Status.CONVERGED
    assert "compiled" in fit.detail
    assert "not compiled" not in fit.detail
    assert float(fit.mean()["mu"]) == pytest.approx(MEAN, abs=0.1 * SD)


def test_a_start_of_other_numbers_than_the_data():
    problem = problem_of(F32, F32, F64)
    size = {"num_samples": 100, "num_warmup": 50, "num_chains": 1, "sampler": "pyro"}
    fit = nuts(problem, **size, start=laplace(problem), compile=True)
    assert float(fit.mean()["mu"]) == pytest.approx(MEAN, abs=4 * SD / math.sqrt(fit.ess["mu"]))


def test_a_hyperparameter_may_be_finer_than_every_site():
    scale = torch.full((12,), 1.0, dtype=F64)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=F32), 1.0))
        with pyro.plate("rows", 12):
            pyro.sample("y", dist.Normal(mu, scale), obs=y)

    problem = Problem(model, Y.to(F32))
    assert (problem.latents["mu"].dtype, problem.observed["y"].dtype) == (F32, F32)
    size = {"num_samples": 100, "num_warmup": 50, "num_chains": 1, "sampler": "pyro"}
    fit = nuts(problem, **size, compile=True)
    assert float(fit.mean()["mu"]) == pytest.approx(MEAN, abs=4 * SD / math.sqrt(fit.ess["mu"]))


def test_a_recording_is_held_to_the_digits_it_computes_in():
    """float32 inside float64: the last digits of exp() differ between libraries."""
    x = torch.tensor([0.5, 2.0], dtype=F64)
    coarse = functional_graph(lambda x: [x.float().exp().double()], [x])
    fine = functional_graph(lambda x: [x.exp()], [x])
    assert (coarse.rounding, fine.rounding) == (torch.finfo(F32).eps, torch.finfo(F64).eps)
    other = x * (1 + 1e-6)
    refuse_other_numbers([x], [other], rounding=coarse.rounding)
    with pytest.raises(ValueError, match="other numbers"):
        refuse_other_numbers([x], [other], rounding=fine.rounding)
