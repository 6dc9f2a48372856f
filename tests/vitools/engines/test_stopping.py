"""The plateau rule on series whose behaviour is known."""

import random

import pytest
import torch

from vitools.engines.stopping import PlateauRule, batch_mean, split_rhat
from vitools.posterior import Status


def run(series, iterates):
    reductions, current = [], {}
    rule = PlateauRule(lambda: reductions.append(True), lambda: current["iterate"])
    for step, (value, iterate) in enumerate(zip(series, iterates, strict=True), 1):
        current["iterate"] = torch.tensor([iterate])
        status = rule(step, value)
        if status is not None:
            return step, status, len(reductions)
    return None, None, len(reductions)


def test_a_steady_climb_is_never_stopped():
    noise = random.Random(0)
    climb = [0.05 * i + noise.gauss(0, 1) for i in range(5000)]
    still = [noise.gauss(0, 1) for _ in range(5000)]
    assert run(climb, still) == (None, None, 0)


def test_drifting_parameters_hold_a_stage_while_the_bound_is_too_noisy_to_tell():
    noise = random.Random(0)
    flat = [noise.gauss(0, 20) for _ in range(5000)]
    drift = [0.02 * i + noise.gauss(0, 1) for i in range(5000)]
    assert run(flat, drift) == (None, None, 0)


def test_constants_among_the_parameters_do_not_dilute_what_drifts():
    noise = random.Random(0)
    current = {}
    rule = PlateauRule(lambda: None, lambda: current["iterate"])
    for step in range(5000):
        current["iterate"] = torch.cat(
            [torch.zeros(99), torch.tensor([0.02 * step + noise.gauss(0, 1)])]
        )
        assert rule(step, noise.gauss(0, 20)) is None


def test_a_ridge_is_left_once_the_bound_is_known_to_be_flat():
    noise = random.Random(0)
    flat = [noise.gauss(0, 0.5) for _ in range(5000)]
    drift = [0.02 * i + noise.gauss(0, 1) for i in range(5000)]
    step, status, _ = run(flat, drift)
    assert status is Status.CONVERGED
    assert step > 2 * 3 * 400  # both stages waited for the bound's resolution


def test_noise_without_trend_ends_after_all_stages():
    noise = random.Random(1)
    flat = [noise.gauss(-10, 2) for _ in range(20_000)]
    step, status, reductions = run(flat, flat)
    assert status is Status.CONVERGED
    assert reductions == 1
    assert step < 5000


def test_it_waits_for_a_slow_start():
    noise = random.Random(2)
    slow = [-100 * 0.998**i + noise.gauss(0, 0.5) for i in range(20_000)]
    step, status, _ = run(slow, [noise.gauss(0, 1) for _ in slow])
    assert status is Status.CONVERGED
    assert 100 * 0.998**step < 0.5  # within a noise sd of the plateau


def test_batch_mean_error_grows_with_correlation():
    noise = random.Random(3)
    white = [noise.gauss(0, 1) for _ in range(1000)]
    walk = [0.0]
    for value in white:
        walk.append(0.95 * walk[-1] + value)
    assert batch_mean(walk[1:])[1] > 5 * batch_mean(white)[1]


def test_split_rhat_of_two_shifted_halves():
    # halves with variance 2/3 each and means 2 apart: R-hat² = (n-1)/n + 2 / (2/3 · n/(n-1))
    half = torch.tensor([-1.0, 0.0, 1.0]).double()
    window = torch.cat([half, half + 2]).unsqueeze(-1)
    assert float(split_rhat(window)) == pytest.approx((2 / 3 + 2.0 / 1.0) ** 0.5)
