"""Adam's settings: the steps of torch.optim.Adam, compiled whole, resumed to the same numbers."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.nn import Parameter

from vitools import Adam, Problem, Status, svi
from vitools.engines import ConstantRate, Cosine, Exponential, Stages
from vitools.engines.svi.optimisers.adam import AdamAscent
from vitools.engines.svi.optimisers.ascent import BLOCK
from vitools.engines.svi.optimisers.gradient import EagerGradient
from vitools.errors import FileError, OptionError, VitoolsError
from vitools.graphs.compiled import find_compiler

SETTINGS = Adam(betas=(0.8, 0.97), epsilon=0.03, schedule=Cosine(60, warm_up=10, floor=0.05))


def model(y):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean.sum(), scale), obs=y)


@pytest.fixture
def problem():
    return Problem(model, torch.linspace(-1.0, 2.0, 30))


def parameters():
    return [Parameter(torch.linspace(-2.0, 1.0, 3)), Parameter(torch.tensor([[0.3, -1.0]]))]


def loss_of(values):
    first, second = values
    return (
        (first.exp() - 1).square().sum() + (second - first[0]).square().sum() + second.cosh().sum()
    )


@pytest.mark.parametrize("schedule", [None, SETTINGS.schedule, lambda step: 1 / (1 + step)])
def test_the_steps_are_those_of_torch_with_a_rate_for_each_block(schedule):
    settings = Adam(SETTINGS.betas, SETTINGS.epsilon, schedule)
    ours = parameters()

    def gradient():
        loss = loss_of(ours)
        return loss.detach(), *torch.autograd.grad(loss, ours)

    eager = EagerGradient(torch.enable_grad()(gradient), ours)
    ascent = AdamAscent(ours, eager, None, 0.1, settings=settings)
    theirs = parameters()
    optimizer = torch.optim.Adam(theirs, lr=0.1, betas=settings.betas, eps=settings.epsilon)
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 if schedule is None else schedule(step // BLOCK * BLOCK)
    )
    for _ in range(25):
        losses = ascent.advance([], BLOCK)
        for ours_before in losses:
            loss = loss_of(theirs)
            assert ours_before == pytest.approx(loss.item(), rel=1e-12)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
        expected = torch.cat([p.detach().flatten() for p in theirs])
        torch.testing.assert_close(ascent.vector(), expected, rtol=1e-12, atol=1e-14)


def test_a_run_with_betas_and_epsilon_is_that_of_torch_s_own_optimiser(problem):
    options = {"max_steps": 200, "seed": 3, "start": "guide", "compile": False}
    flat = svi(problem, AutoNormal, optimizer=Adam((0.8, 0.97), 0.03), learning_rate=0.1, **options)
    torch_s = svi(
        problem,
        AutoNormal,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.97), eps=0.03),
        **options,
    )
    assert flat.history.elbo == pytest.approx(torch_s.history.elbo, rel=1e-10)


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_settings_and_schedule_are_compiled_with_the_step(problem):
    options = {"optimizer": SETTINGS, "max_steps": 202, "seed": 2, "learning_rate": 0.1}
    plain = svi(problem, AutoNormal, compile=False, **options)
    fast = svi(problem, AutoNormal, compile=True, **options)
    default = svi(problem, AutoNormal, compile=True, **{**options, "optimizer": None})
    assert fast.detail.endswith("; compiled")
    assert fast.history.elbo == pytest.approx(plain.history.elbo, rel=1e-9)
    assert fast.history.elbo[-1] != pytest.approx(default.history.elbo[-1], rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "compile"),
    [
        (SETTINGS.schedule, False),
        (SETTINGS.schedule, True),
        (lambda step: 0.999**step, False),
        pytest.param(lambda step: 0.999**step, True, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_goes_on_along_its_schedule(problem, tmp_path, schedule, compile):
    settings = Adam(SETTINGS.betas, SETTINGS.epsilon, schedule)
    options = {"optimizer": settings, "max_steps": 60, "seed": 4, "compile": compile}
    whole = svi(problem, AutoNormal, **options)
    path = tmp_path / "run.ckpt"

    def stop(done, bound):
        if done >= 32:
            raise KeyboardInterrupt

    first = svi(problem, AutoNormal, callback=stop, checkpoint=path, **options)
    assert (first.status, len(first.history)) == (Status.INTERRUPTED, 32)
    second = svi(problem, AutoNormal, checkpoint=path, resume=True, **options)
    assert second.history.elbo == whole.history.elbo
    for name, value in whole.params["params"].items():
        assert torch.equal(value, second.params["params"][name])


@pytest.mark.parametrize(
    "change",
    [
        None,
        Adam(SETTINGS.betas, 0.02, SETTINGS.schedule),
        Adam((0.8, 0.98), SETTINGS.epsilon, SETTINGS.schedule),
        Adam(SETTINGS.betas, SETTINGS.epsilon, Cosine(61, warm_up=10, floor=0.05)),
        Adam(SETTINGS.betas, SETTINGS.epsilon, lambda step: 1.0),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(problem, tmp_path, change):
    path = tmp_path / "run.ckpt"
    options = {"max_steps": 20, "checkpoint": path, "compile": False}
    svi(problem, AutoNormal, optimizer=SETTINGS, **options)
    with pytest.raises(FileError, match=r"its optimizer is Adam\(betas=\(0.8, 0.97\)"):
        svi(problem, AutoNormal, optimizer=change, resume=True, **options)


def test_a_function_is_known_by_its_values(problem, tmp_path):
    def schedule(factor):
        return Adam(schedule=lambda step: factor**step)

    options = {"max_steps": 20, "checkpoint": tmp_path / "run.ckpt", "compile": False}
    svi(problem, AutoNormal, optimizer=schedule(0.99), **options)
    svi(problem, AutoNormal, optimizer=schedule(0.99), resume=True, **options)
    with pytest.raises(FileError, match="its optimizer is Adam"):
        svi(problem, AutoNormal, optimizer=schedule(0.98), resume=True, **options)


def test_a_plateau_shortens_scheduled_steps_too():
    ours = parameters()
    settings = Adam(schedule=Exponential(8, factor=0.5))
    ascent = AdamAscent(ours, EagerGradient(lambda: (), ours), None, 0.1, settings=settings)
    ascent._take(ascent.adam_state._replace(step=torch.tensor(8.0)))
    ascent.scale_rate(0.2)
    assert ascent._scheduled_rate().item() == pytest.approx(0.1 * 0.5 * 0.2)


SCHEDULES = {
    ConstantRate(): (1.0, 1.0, 1.0),
    Cosine(200): (1.0, 0.5, 0.0),
    Cosine(200, floor=0.5): (1.0, 0.75, 0.5),
    Exponential(100, factor=0.1): (1.0, 0.1, 0.01),
    Stages((100, 200), (1.0, 0.3, 0.1)): (1.0, 0.3, 0.1),
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_have_the_factors_they_state_also_after_a_warm_up(schedule):
    assert [schedule(step) for step in (0, 100, 200)] == pytest.approx(SCHEDULES[schedule])
    fields = {k: v for k, v in vars(schedule).items() if k != "warm_up"}
    warm = type(schedule)(**fields, warm_up=50)
    assert [warm(step) for step in (0, 24, 49)] == pytest.approx([0.02, 0.5, 1.0])
    assert [warm(step) for step in (50, 150, 250)] == pytest.approx(SCHEDULES[schedule])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Adam(betas=(0.9, 1.0)), r"two betas from 0 to below 1, got \(0.9, 1.0\)"),
        (lambda: Adam(epsilon=-1.0), "epsilon of at least 0, got -1.0"),
        (lambda: ConstantRate(warm_up=-1), "ConstantRate: expected warm_up of at least 0 steps"),
        (lambda: Cosine(0), "Cosine: expected at least 1 step"),
        (lambda: Exponential(10, factor=0.0), "Exponential: .* factor above 0"),
        (lambda: Stages((10, 5), (1.0, 1.0, 1.0)), "Stages: expected rising ends"),
        (lambda: Stages((10,), (1.0,)), "one factor more than ends"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words):
    with pytest.raises(OptionError, match=words):
        make()


@pytest.mark.parametrize("factor", [-0.5, math.nan, math.inf])
def test_a_schedule_without_a_factor_is_refused_at_its_step(problem, factor):
    settings = Adam(schedule=lambda step: 1.0 if step < 8 else factor)
    with pytest.raises(VitoolsError, match=r"factor of at least 0, got .* for step 8"):
        svi(problem, AutoNormal, optimizer=settings, max_steps=40)


def test_parameters_of_two_dtypes_take_settings_but_no_schedule():
    def two_dtypes(y):
        shift = pyro.param("shift", torch.zeros((), dtype=torch.float32))
        mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("y", dist.Normal(mean + shift.double(), 1.0).expand([3]).to_event(1), obs=y)

    problem = Problem(two_dtypes, torch.ones(3))
    options = {"max_steps": 40, "learning_rate": 0.05, "start": "guide"}
    settings = Adam((0.8, 0.97), 0.03)
    mine = svi(problem, AutoNormal, optimizer=settings, **options)
    torch_s = svi(
        problem,
        AutoNormal,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.97), eps=0.03),
        max_steps=40,
        start="guide",
    )
    assert mine.history.elbo == torch_s.history.elbo
    with pytest.raises(OptionError, match="one dtype and on one device"):
        svi(problem, AutoNormal, optimizer=Adam(schedule=Cosine(10)), **options)


def test_the_metric_gives_the_gradient_back_from_a_step():
    """After the first step the moments are those of one gradient, and M Δθ = -g."""
    theta = Parameter(torch.tensor([1.0, -2.0, 0.5]))
    slope = torch.tensor([0.3, -4.0, 20.0])

    def loss_and_gradient():
        return (theta.detach() @ slope, slope)

    gradient = EagerGradient(loss_and_gradient, [theta])
    settings = Adam(betas=(0.8, 0.95), epsilon=0.1, schedule=Exponential(100, warm_up=7))
    units = torch.tensor([1.0, 3.0, 0.2])
    ascent = AdamAscent([theta], gradient, None, 0.05, units, settings)
    before = ascent.vector().clone()
    ascent.advance([], 1)
    moved = ascent.metric() * (ascent.vector() - before)
    torch.testing.assert_close(moved, -slope)
    torch.testing.assert_close(ascent.metric(2), ascent.metric()[::2])


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        Adam,
        pyro.optim.Adam({"lr": 0.01}),
        torch.optim.Adam([Parameter(torch.zeros(2))]),
    ],
)
def test_optimisers_of_other_kinds_are_refused(optimizer):
    problem = Problem(model, torch.linspace(-1.0, 1.0, 10))
    with pytest.raises(OptionError, match=r"optimizer: expected Adam\(…\).*learning_rate="):
        svi(problem, AutoNormal, optimizer=optimizer)
