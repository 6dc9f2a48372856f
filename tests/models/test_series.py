"""Series: given their scales, the Kalman filter and the forward algorithm; the truth of simulated ones."""

import math

import numpy as np
import pyro.poutine as poutine
import pytest
import scipy.stats
import torch

from vitools import Problem, cavi
from vitools.data import load_nile
from vitools.errors import DataError, OptionError
from vitools.models.series import hidden_markov, local_level, state_space


def kalman(y, seen, start, spread, matrix, noise_of_state, noise):
    """log p(y), and means and variances of the first state given all y (Rauch, Tung, Striebel)."""
    m, P = np.array(start), np.diag(np.square(spread))
    F, Q, h = np.array(matrix), np.diag(np.square(noise_of_state)), np.eye(len(start))[0]
    evidence, ahead, filtered = 0.0, [], []
    for t, value in enumerate(y):
        if t:
            m, P = F @ m, F @ P @ F.T + Q
        ahead.append((m, P))
        if seen[t]:
            variance = h @ P @ h + noise**2
            evidence -= 0.5 * (math.log(2 * math.pi * variance) + (value - h @ m) ** 2 / variance)
            gain = P @ h / variance
            m, P = m + gain * (value - h @ m), P - np.outer(gain, h @ P)
        filtered.append((m, P))
    smooth = [filtered[-1]]
    for t in range(len(y) - 2, -1, -1):
        m, P = filtered[t]
        J = P @ F.T @ np.linalg.inv(ahead[t + 1][1])
        later = smooth[0]
        smooth.insert(
            0, (m + J @ (later[0] - ahead[t + 1][0]), P + J @ (later[1] - ahead[t + 1][1]) @ J.T)
        )
    return evidence, np.array([m for m, _ in smooth]), np.array([np.diag(P) for _, P in smooth])


def given(model, **values):
    """The model with some sites held, as data."""
    held = {name: torch.tensor(value).double() for name, value in values.items()}
    return poutine.condition(model, held), held


def test_the_level_of_the_nile_is_the_kalman_smoothers():
    flow, _ = local_level.nile()
    mask = torch.ones(100, dtype=torch.bool)
    mask[20:30] = False
    model, _ = given(local_level.model, drift=38.0, noise=123.0)
    fit = cavi(Problem(model, flow, mask))
    s = flow.std().item()
    evidence, mean, variance = kalman(
        flow.tolist(), mask, [flow.mean().item()], [10 * s], [[1.0]], [38.0], 123.0
    )
    evidence += scipy.stats.halfcauchy(0, s).logpdf([38.0, 123.0]).sum()
    assert fit.elbo().value == pytest.approx(evidence, rel=1e-9)
    np.testing.assert_allclose(fit.mean()["level"], mean, rtol=1e-7)
    np.testing.assert_allclose(fit.sd()["level"] ** 2, variance, rtol=1e-6)


@pytest.mark.slow
def test_the_drift_of_the_nile_is_that_of_a_grid_of_kalman_filters():
    example = local_level.example(0)
    flow = example.args[0]
    s, start = flow.std().item(), flow.mean().item()
    drifts, noises = np.exp(np.linspace(1.5, 5.6, 45)), np.exp(np.linspace(4.3, 5.3, 25))
    always = [True] * 100
    table = np.array(
        [
            [
                kalman(flow.tolist(), always, [start], [10 * s], [[1.0]], [d], n)[0]
                + scipy.stats.halfcauchy(0, s).logpdf([d, n]).sum()
                + math.log(d * n)
                for n in noises
            ]
            for d in drifts
        ]
    )
    shares = np.exp(table - table.max())
    shares = shares.sum(1) / shares.sum()
    mean = (shares * drifts).sum()
    sd = math.sqrt((shares * (drifts - mean) ** 2).sum())
    fit = cavi(Problem(example.model, flow))
    assert fit.mean()["drift"].item() == pytest.approx(mean, abs=0.1 * sd)
    assert fit.sd()["drift"].item() == pytest.approx(sd, rel=0.1)


def test_the_nile_is_the_published_series():
    years, flow = load_nile()
    assert (years[0], years[-1], len(flow)) == (1871, 1970, 100)
    assert flow.mean() == pytest.approx(919.35)  # as R's datasets has it
    assert flow.std(ddof=1) == pytest.approx(169.2275, abs=1e-4)


def test_level_and_trend_are_the_kalman_smoothers():
    y, _ = state_space.simulate(40, seed=2)
    model, _ = given(state_space.model, level_drift=0.2, trend_drift=0.1, noise=1.0)
    fit = cavi(Problem(model, y))
    step = y.diff().std().item()
    evidence, mean, variance = kalman(
        y.tolist(),
        [True] * 40,
        [y[0].item(), 0.0],
        [10 * y.std().item(), y.std().item()],
        [[1.0, 1.0], [0.0, 1.0]],
        [0.2, 0.1],
        1.0,
    )
    evidence += scipy.stats.halfcauchy(0, step).logpdf([0.2, 1.0]).sum()
    evidence += scipy.stats.halfcauchy(0, step / 10).logpdf(0.1)
    assert fit.elbo().value == pytest.approx(evidence, rel=1e-9)
    np.testing.assert_allclose(fit.mean()["state"], mean, atol=1e-6)
    np.testing.assert_allclose(fit.sd()["state"] ** 2, variance, rtol=1e-6)


@pytest.mark.slow
def test_level_and_trend_of_a_simulated_series_are_found():
    y, truth = state_space.simulate(seed=0)
    fit = cavi(Problem(state_space.model, y))
    z = (fit.mean()["state"] - truth) / fit.sd()["state"]
    assert bool((z.square().mean(0).sqrt() < 1.6).all())


def test_regimes_given_their_levels_are_those_of_the_forward_algorithm():
    y, table = hidden_markov.simulate(30, seed=4).y, [[0.95, 0.05], [0.1, 0.9]]
    model, _ = given(hidden_markov.model, transition=table, level=[-1.0, 1.5], precision=[4.0, 1.0])
    fit = cavi(Problem(model, y))
    emission = np.stack([scipy.stats.norm(-1, 0.5).pdf(y), scipy.stats.norm(1.5, 1).pdf(y)], 1)
    forward = [0.5 * emission[0]]
    for row in emission[1:]:
        forward.append(forward[-1] @ np.array(table) * row)
    backward = [np.ones(2)]
    for row in emission[:0:-1]:
        backward.insert(0, np.array(table) @ (row * backward[0]))
    joint = np.array(forward) * np.array(backward)
    s = y.std().item()
    expected = (
        math.log(forward[-1].sum())
        + scipy.stats.dirichlet([9, 1]).logpdf(table[0])
        + scipy.stats.dirichlet([1, 9]).logpdf(table[1])
        + scipy.stats.norm(y.mean(), 2 * s).logpdf([-1.0, 1.5]).sum()
        + scipy.stats.gamma(2, scale=4 / s**2).logpdf([4.0, 1.0]).sum()
    )
    assert fit.elbo().value == pytest.approx(expected, rel=1e-9)
    found = fit.marginal("state").state_probs
    np.testing.assert_allclose(found, joint / joint.sum(1, keepdims=True), atol=1e-9)


def test_regimes_of_a_simulated_series_are_found():
    regimes = hidden_markov.simulate(seed=0)
    fit = cavi(Problem(hidden_markov.model, regimes.y), restarts=3)
    assert fit.status.is_good
    mean, sd = fit.mean(), fit.sd()
    order = mean["level"].argsort()
    for name, truth in regimes.truth.items():
        found, width = mean[name][order], sd[name][order]
        if name == "transition":
            found, width = found[:, order], width[:, order]
        assert bool(((found - truth).abs() < 4 * width).all()), name
    likeliest = fit.marginal("state").state_probs[:, order].argmax(1)
    assert (likeliest == regimes.state).double().mean() > 0.95


def test_missing_times_are_bridged():
    y = local_level.simulate(30, seed=1)
    mask = torch.ones(30, dtype=torch.bool)
    mask[10:20] = False
    fit = cavi(Problem(local_level.model, y, mask), nested=(), max_sweeps=20)
    sd = fit.sd()["level"][:, 0]
    assert sd[15] > sd[9]
    assert sd[15] > sd[20]


def test_pictures_stand_at_the_years():
    example = local_level.example(0)
    problem = Problem(example.model, *example.args).with_coords(**example.coords)
    (figure,) = local_level.pictures(cavi(problem, nested=(), max_sweeps=3)).values()
    (axes,) = figure.axes
    assert axes.lines[-1].get_xdata()[[0, -1]].tolist() == [1871, 1970]
    y, _ = state_space.simulate(20)
    (figure,) = state_space.pictures(cavi(Problem(state_space.model, y), max_sweeps=3)).values()
    assert [axes.get_ylabel() for axes in figure.axes] == ["level", "trend"]


def test_the_diagram_names_each_transition():
    fit = cavi(Problem(hidden_markov.model, hidden_markov.simulate(60).y, states=3), max_sweeps=3)
    figures = hidden_markov.pictures(fit)
    assert list(figures) == ["transitions", "regimes"]
    table = fit.mean()["transition"]
    said = {text.get_text() for text in figures["transitions"].axes[0].texts}
    assert {f"stays {table[k, k]:.2f}" for k in range(3)} <= said
    assert {f"{table[i, j]:.2f}" for i in range(3) for j in range(3) if i != j} <= said


@pytest.mark.parametrize(
    ("model", "y", "options", "error", "said"),
    [
        (local_level.model, torch.ones(5), {}, DataError, "y: all values are equal"),
        (local_level.model, torch.ones(5, 2), {}, DataError, r"y: expected shape \[rows\]"),
        (state_space.model, torch.tensor([1.0, 2.0]), {}, DataError, "at least 3 times, got 2"),
        (
            hidden_markov.model,
            torch.arange(5.0),
            {"states": 1},
            OptionError,
            "number from 2, got 1",
        ),
    ],
)
def test_what_is_no_series_is_refused(model, y, options, error, said):
    with pytest.raises(error, match=said):
        Problem(model, y, **options)
