"""The plateau rule on series whose behaviour is known."""

import math
import random

import pytest
import torch

from vitools.engines.svi.stopping import PlateauRule, batch_mean, split_rhat
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


def descent(theta, curvature, metric, steps, noise=0.0, seed=0):
    """Iterates of θ ← θ - (h θ + noise) / M from ``theta``."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        slope = curvature * theta + noise * torch.randn(theta.shape, generator=generator).double()
        theta = theta - slope / metric
        yield theta


def with_metric(iterates, metric, bounds, **options):
    """The rule after it has seen everything, and when it ended."""
    current, ended = {}, None
    rule = PlateauRule(
        lambda: None,
        lambda: current["iterate"],
        metric=lambda stride: metric[::stride],
        stages=1,
        **options,
    )
    for step, (iterate, value) in enumerate(zip(iterates, bounds, strict=True), 1):
        current["iterate"] = iterate
        if rule(step, value) is not None:
            return rule, step
    return rule, ended


def test_the_predicted_gain_is_what_gradient_descent_gains():
    """-½ Σ hᵢ θᵢ² with θ_t = (1 - hᵢ/Mᵢ)^t θ₀, at the mean iterates of two quarters of a run."""
    curvature, metric = torch.tensor([4.0, 0.3, 1e-3]).double(), torch.tensor([900.0, 400.0, 2.0])
    start = torch.tensor([30.0, 20.0, 10.0]).double()
    steps = 380  # short of the first look, which would end a stage
    rule, _ = with_metric(
        descent(start, curvature, metric.double(), steps), metric.double(), [0.0] * steps, thin=1
    )
    powers = (1 - curvature / metric.double()) ** torch.arange(1, steps + 1).double().unsqueeze(-1)
    path = start * powers
    means = path[190:285].mean(0), path[285:].mean(0)
    bounds = [float(-0.5 * curvature @ mean**2) for mean in means]
    expected = (bounds[1] - bounds[0]) * 1000 / 95  # going on for a thousand steps
    assert expected > 10
    assert rule.to_be_had() == pytest.approx(expected, rel=0.05)  # the gradient bends a little


def test_a_slow_climb_that_the_noise_hides_is_waited_for():
    """The bound gains 1 nat in 1000 steps and its noise is 20: only the iterates can tell."""
    noise = random.Random(0)
    metric = torch.tensor([1000.0]).double()  # a step of .001 is the gradient 1
    iterates = (torch.tensor([0.001 * i]).double() for i in range(5000))
    _, ended = with_metric(iterates, metric, [noise.gauss(0, 20) for _ in range(5000)])
    assert ended is None


def test_drift_that_gains_nothing_is_not_waited_for():
    """The same drift along a ridge so flat that 1000 steps gain .01 nats."""
    noise = random.Random(0)
    metric = torch.tensor([10.0]).double()
    iterates = (torch.tensor([0.001 * i]).double() for i in range(5000))
    _, ended = with_metric(iterates, metric, [noise.gauss(0, 20) for _ in range(5000)])
    assert ended == 1000  # the shortest last stage


def test_the_average_s_monte_carlo_error_is_waited_for():
    """Stationary noise in 500 parameters, whose mean over n steps costs Σ s²/(2 h n) nats."""
    size = 500
    curvature, metric = torch.ones(size).double(), torch.full((size,), 20.0).double()
    iterates = list(descent(torch.zeros(size).double(), curvature, metric, 8000, noise=1.0))
    _, ended = with_metric(iterates, metric, [0.0] * 8000)
    assert ended is not None
    assert size / (2 * ended) < 0.2
    assert ended < 4000


def test_few_of_many_parameters_stand_for_all():
    metric = torch.full((5000,), 2.0).double()
    path = [torch.full((5000,), 0.001 * i).double() for i in range(380)]
    whole, _ = with_metric(path, metric, [0.0] * 380)
    fewer, _ = with_metric([p[:500] for p in path], metric[:500], [0.0] * 380)
    assert whole.to_be_had() == pytest.approx(10 * fewer.to_be_had())


def test_steps_of_size_zero_end_the_run_at_a_limit():
    """A schedule that came to 0 leaves the iterates where they are, converged or not."""
    iterates = [torch.tensor([1.0]).double()] * 2000
    metric = torch.tensor([math.inf]).double()
    rule, ended = with_metric(iterates, metric, [0.0] * 2000)
    assert ended is not None
    assert ended < 2000
    assert rule.stage == 0


def test_gradients_are_read_off_steps_of_any_size():
    """Σ Mₜ Δθₜ is -n times a constant gradient, whatever the rate does meanwhile."""
    rates = [0.5 * 0.99**t for t in range(200)]
    theta, current = torch.zeros(1).double(), {}
    rule = PlateauRule(
        lambda: None,
        lambda: current["iterate"],
        metric=lambda stride: current["metric"],
        thin=1,
    )
    for step, rate in enumerate(rates):
        current["metric"] = torch.tensor([1 / rate]).double()
        theta = theta - rate * 3.0  # the gradient is 3
        current["iterate"] = theta
        rule(step, 0.0)
    begin = len(rates) // 2
    half = torch.tensor(rates[begin:]).double().cumsum(0)
    between = 3.0 * (half[-50:].mean() - half[:50].mean())
    steps = len(rates)
    spread = (3.0 * half).var() * torch.tensor([1 / r for r in rates[begin:]]).mean() / steps
    expected = 3.0 * between / 50 * 1000 + spread
    assert rule.to_be_had() == pytest.approx(float(expected), rel=1e-6)
