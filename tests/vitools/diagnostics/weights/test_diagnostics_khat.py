"""k̂ against a tail whose shape is known, and against ArviZ."""

import math

import numpy as np
import pytest
import torch

from vitools.diagnostics import khat_estimate, khat_threshold, pareto_khat
from vitools.errors import NumericalError, OptionError
from vitools.reporting.arviz.groups import import_arviz


def gaussian_log_weights(sd: float, n: int, seed: int) -> torch.Tensor:
    """p = N(0, I₂), q = N(0, sd² I₂): r²/sd² is exponential, so the weights are exactly Pareto
    with shape k = 1 - sd²."""
    generator = torch.Generator().manual_seed(seed)
    squares = (sd * torch.randn(n, 2, generator=generator, dtype=torch.float64)).square().sum(-1)
    return squares * (1 / sd**2 - 1) / 2 + 2 * math.log(sd)


@pytest.mark.parametrize("sd", [0.4, 0.6, 0.9])
def test_shape_of_a_known_tail_and_its_error(sd):
    replicates, n = 200, 10_000
    found = [khat_estimate(gaussian_log_weights(sd, n, seed)) for seed in range(replicates)]
    values = np.array([e.value for e in found])
    tail = 300  # 3 √n
    expected = ((1 - sd**2) * tail + 5) / (tail + 10)  # the fit's prior: 10 draws of shape 1/2
    standard_error = values.std(ddof=1) / math.sqrt(replicates)
    assert abs(values.mean() - expected) < 4 * standard_error
    stated = np.mean([e.standard_error for e in found])
    assert stated == pytest.approx(values.std(ddof=1), rel=4 / math.sqrt(2 * replicates))


def log_weight_sets():
    rng = np.random.default_rng(0)
    yield "normal", rng.normal(size=4000)
    yield "wide normal", 5 * rng.normal(size=1000)
    yield "Cauchy tail", np.log(np.abs(rng.standard_cauchy(size=2000)))
    yield "bounded", np.log(rng.uniform(size=1500))
    yield "spread over 900 nats", rng.uniform(-900, 0, size=1000)
    yield "few draws", rng.normal(size=30)
    yield "nearly constant", -3456.2 + 1e-8 * rng.normal(size=1000)


@pytest.mark.parametrize("log_weights", [pytest.param(w, id=name) for name, w in log_weight_sets()])
def test_agrees_with_arviz(log_weights):
    arviz = import_arviz()
    if not hasattr(arviz, "psislw"):
        pytest.skip("this ArviZ does not offer psislw")
    _, theirs = arviz.psislw(log_weights)
    ours = pareto_khat(torch.from_numpy(log_weights))
    assert ours == pytest.approx(float(theirs), abs=1e-4)


def test_exact_posterior_is_best_and_not_worst():
    generator = torch.Generator().manual_seed(0)
    rounding = 1e-13 * torch.randn(1000, generator=generator, dtype=torch.float64)
    assert pareto_khat(-3456.2 + rounding) == 0.0
    assert khat_estimate(torch.full((1000,), -3.0)).is_exact


def test_one_draw_that_carries_everything_is_infinite():
    assert pareto_khat(torch.cat([torch.zeros(3) + 800, torch.zeros(997)])) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_undefined_weights_are_refused(bad):
    with pytest.raises(NumericalError, match="1 of 50 log weights"):
        pareto_khat(torch.tensor([bad] + [0.1 * i for i in range(49)]))


def test_too_few_draws_are_refused():
    with pytest.raises(OptionError, match="at least 25 draws, got 24"):
        pareto_khat(torch.linspace(0, 1, 24))


def test_zero_weights_are_counted_as_weights():
    log_weights = gaussian_log_weights(0.6, 1000, 0)
    worthless = torch.full((500,), -math.inf, dtype=torch.float64)
    assert math.isfinite(pareto_khat(torch.cat([log_weights, worthless])))


def test_threshold():
    assert khat_threshold(10**6) == 0.7
    assert khat_threshold(1000) == pytest.approx(2 / 3)
