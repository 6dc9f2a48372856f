"""One graph for the step of svi(): the same numbers however it runs, and compiled only once."""

import math
import subprocess

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch._dynamo.utils import counters

from vitools import Problem, Status, svi
from vitools.engines.svi import compiling
from vitools.errors import OptionError, VitoolsWarning
from vitools.graphs import compiled as compiled_module
from vitools.graphs import inductor
from vitools.graphs.compiled import compiled, plan
from vitools.graphs.functional import functional_graph
from vitools.graphs.loops import native
from vitools.graphs.noise import distinct
from vitools.guides import AutoDirichlet
from vitools.isolation import seeded

needs_compiler = pytest.mark.skipif(inductor.find_compiler() is None, reason="no C++ compiler")


def regression(x, y):
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
    noise = pyro.sample("noise", dist.Gamma(2.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(weight * x, noise), obs=y)


@pytest.fixture
def problem():
    x = torch.linspace(-1.0, 1.0, 25)
    return Problem(regression, x, 0.7 * x + 0.3 * torch.sin(40 * x))


# ---- the recorded graph --------------------------------------------------------------------


def test_constants_are_computed_once_and_noise_becomes_an_input():
    data = torch.tensor([1.0, 2.0, 4.0])
    weight = torch.tensor(3.0)

    def function(x):
        scale = torch.lgamma(data).exp().sum()
        return [weight * x * scale + torch.randn(2).sum(), (x * 1.0).expand(())]

    with seeded(0):
        graph = functional_graph(function, [torch.tensor(2.0)], [weight])
        noise = graph.draw(5)[0]
    targets = [n.target for n in graph.module.graph.nodes if n.op == "call_function"]
    assert torch.ops.aten.lgamma.default not in targets
    assert len(graph.noise) == 1
    assert not graph.has_inner_noise
    assert noise.shape == (5, 2)
    first, second = graph([torch.tensor(5.0), torch.tensor(7.0)], [noise[0]])
    scale = math.gamma(1) + math.gamma(2) + math.gamma(4)
    assert float(first) == pytest.approx(5 * 7 * scale + float(noise[0].sum()))
    assert float(second) == 7.0


def test_in_place_operations_are_written_out():
    def function(x):
        y = x * 2
        y.add_(1.0)
        z = torch.zeros(3)
        z[1] = y.sum()
        return [y, z]

    graph = functional_graph(function, [torch.ones(2)])
    y, z = graph([torch.tensor([1.0, 2.0])], [])
    assert y.tolist() == [3.0, 5.0]
    assert z.tolist() == [0.0, 8.0, 0.0]


def test_a_function_that_changes_its_data_is_refused():
    seen = torch.zeros(2)

    def function(x):
        seen.add_(x)
        return [seen.sum()]

    with pytest.raises(ValueError, match="changes its own state"):
        functional_graph(function, [torch.ones(2)])


def test_draws_that_a_parameter_shapes_stay_inside():
    def function(x):
        return [torch._standard_gamma(x)]

    with seeded(0):
        graph = functional_graph(function, [torch.ones(2)])
    assert graph.has_inner_noise
    assert graph.noise == ()


def test_normals_written_into_an_empty_tensor_are_drawn_outside_for_many_steps():
    scale = torch.tensor([1.0, 2.0])
    with seeded(0):
        graph = functional_graph(lambda x: [x + torch.empty(2).normal_() * scale], [torch.ones(2)])
        (noise,) = graph.noise
        draws = noise.draw(4000)
    assert draws.shape == (4000, 2)
    error = 1 / math.sqrt(4000)
    assert bool((draws.mean(0).abs() < 4 * error).all())
    assert bool(((draws.std(0) - 1).abs() < 4 * error).all())


def test_what_normals_are_written_into_does_not_matter():
    """A parameter's own kind of tensor, as in ``x.new_empty(…).normal_()``, shapes no draw."""
    with seeded(0):
        graph = functional_graph(lambda x: [x + (x * 2).normal_()], [torch.ones(2)])
        (noise,) = graph.noise
        recorded, draws = noise.draw(1, as_recorded=True), noise.draw(4000)
    assert not graph.has_inner_noise
    assert recorded.shape == (1, 2)
    assert bool((draws.mean(0).abs() < 4 / math.sqrt(4000)).all())


# ---- the compiled step ---------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    "loops", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["loops", "torch"]
)
def test_compiled_and_uncompiled_steps_agree_and_nothing_is_compiled_twice(
    problem, monkeypatch, loops
):
    if not loops:
        monkeypatch.setattr(compiled_module, "find_loop_compiler", lambda: None)
    loaded = []
    monkeypatch.setattr(native, "_library", spy(native._library, loaded))
    options = {"max_steps": 402, "seed": 2}
    plain = svi(problem, AutoNormal, compile=False, **options)
    counters.clear()
    fast = svi(problem, AutoNormal, compile=True, **options)
    compiled_graphs = counters["inductor"]["fxgraph_cache_hit"]
    compiled_graphs += counters["inductor"]["fxgraph_cache_miss"]
    assert (len(loaded), compiled_graphs) == ((1, 0) if loops else (0, 1))
    assert "compiled" in fast.detail
    assert "uncompiled as asked" in plain.detail
    assert fast.history.elbo[:40] == pytest.approx(plain.history.elbo[:40], rel=1e-9)
    assert len(fast.history) == 402
    again = svi(problem, AutoNormal, compile=True, **options)
    assert again.history.elbo == fast.history.elbo


def spy(function, calls):
    def called(*args):
        calls.append(args)
        return function(*args)

    return called


@needs_compiler
def test_long_runs_of_small_models_are_compiled_before_the_first_step(problem):
    fit = svi(problem, AutoNormal, max_steps=20_000)
    assert fit.detail.endswith("; compiled")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("guide", [AutoNormal, AutoDirichlet])
@pytest.mark.parametrize(
    "optimizer", [None, lambda p: torch.optim.Adam(p, lr=0.05)], ids=["default", "adam"]
)
def test_compiled_steps_agree_for_inner_draws_and_other_optimisers(guide, optimizer):
    counts = torch.tensor([3.0, 5.0, 9.0])

    def model():
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
        pyro.sample("counts", dist.Multinomial(17, shares), obs=counts)

    options = {"max_steps": 200, "seed": 2, "optimizer": optimizer, "clip_norm": 5.0}
    plain = svi(Problem(model), guide, compile=False, **options)
    fast = svi(Problem(model), guide, compile=True, **options)
    assert "compiled" in fast.detail
    assert fast.history.elbo == pytest.approx(plain.history.elbo, rel=1e-6)


@needs_compiler
@pytest.mark.slow
def test_auto_switches_at_the_same_step_whatever_the_clock_says(problem, monkeypatch):
    monkeypatch.setattr(compiled_module, "find_loop_compiler", lambda: None)
    monkeypatch.setattr(compiled_module, "SECONDS_TO_COMPILE", 0.2)
    monkeypatch.setattr(compiled_module, "SECONDS_TO_COMPILE_NODE", 0.0)
    fits = [svi(problem, AutoNormal, max_steps=2000, seed=1) for _ in range(2)]
    assert "compiled from step" in fits[0].detail
    assert fits[0].detail == fits[1].detail
    assert fits[0].history.elbo == fits[1].history.elbo
    plain = svi(problem, AutoNormal, max_steps=2000, seed=1, compile=False)
    step = int(fits[0].detail.rsplit(" ", 1)[1])
    assert fits[0].history.elbo[:step] == plain.history.elbo[:step]


def test_auto_does_not_compile_a_short_run(problem):
    fit = svi(problem, AutoNormal, max_steps=100)
    assert "100 steps would not repay compiling" in fit.detail


def test_without_a_compiler_the_graph_runs_uncompiled(problem, monkeypatch):
    monkeypatch.setattr(compiled_module, "find_compiler", lambda: None)
    fit = svi(problem, AutoNormal, max_steps=40, compile=True)
    assert "no C++ compiler found" in fit.detail
    assert len(fit.history) == 40


def test_a_compiler_that_fails_is_reported_and_the_run_goes_on(problem, monkeypatch):
    def broken(module, example):
        raise RuntimeError("no such header")

    monkeypatch.setattr(compiled_module, "find_loop_compiler", lambda: None)
    monkeypatch.setattr(compiling, "compile_graph", broken)
    monkeypatch.setattr(compiled_module, "find_compiler", lambda: "c++")
    with pytest.warns(VitoolsWarning, match="goes on uncompiled: no such header"):
        fit = svi(problem, AutoNormal, max_steps=40, compile=True)
    plain = svi(problem, AutoNormal, max_steps=40, compile=False)
    assert fit.history.elbo == plain.history.elbo


def test_a_helper_that_cannot_be_started_is_no_error(problem, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    graph = functional_graph(lambda x: [x + 1], [torch.ones(2)])
    helper = inductor.CompilingBeside(graph.module, [torch.ones(2)])
    assert helper.process is None
    helper.cancel()


def test_an_unknown_wish_is_refused(problem):
    with pytest.raises(OptionError, match="expected True, False or 'auto', got 'fast'"):
        svi(problem, AutoNormal, compile="fast")


def test_the_plan_waits_longer_the_cheaper_the_steps(monkeypatch):
    monkeypatch.setattr(compiled_module, "find_compiler", lambda: "c++")
    monkeypatch.setattr(compiled_module, "find_loop_compiler", lambda: "c++")
    small = functional_graph(lambda x: [x + 1], [torch.ones(2)])
    large = functional_graph(lambda x: [(x.sin() + x.cos()).exp()], [torch.ones(10**6)])
    assert plan("auto", small, 4, 20_000, 4).switch_at is None
    assert plan("auto", small, 4, 10**6, 4).by_loops
    assert plan("auto", large, 4, 20_000, 4).by_loops  # until they turn out to be too large
    waiting = plan("auto", large, 4, 20_000, 4, loops=False)
    switch = waiting.switch_at
    assert switch is not None
    assert switch % 4 == 0
    assert f"ended before step {switch}" in waiting.reason  # what a run that ends sooner says
    assert plan(True, small, 4, 10, 4).switch_at == 0
    assert plan(True, None, 1, 10, 4).switch_at is None


@needs_compiler
@pytest.mark.slow
def test_a_compiled_function_gives_value_and_gradient():
    centre = torch.tensor([1.0, -2.0])

    def value_and_gradient(x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = -((leaf - centre) ** 2).sum()
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    run = compiled(value_and_gradient, [torch.zeros(2)], "a paraboloid")
    value, gradient = run(torch.tensor([2.0, 3.0]))
    assert float(value) == -26.0
    assert gradient.tolist() == [-2.0, -10.0]


@needs_compiler
def test_compiled_code_keeps_the_digits_of_small_differences():
    """The compiler's own expm1 is exp(x) - 1, 0 for every x below 1e-16."""
    x = torch.tensor([1e-300, 1e-20, 1e-8, -1e-12, 0.3, 20.0, -40.0], dtype=torch.float64)
    subject = compiled(lambda x: [torch.expm1(x) * 1.0], [x], "expm1")
    torch.testing.assert_close(subject(x)[0], torch.expm1(x), rtol=1e-14, atol=0.0)


@needs_compiler
def test_compiled_code_that_gives_other_numbers_is_not_used(problem, monkeypatch):
    def wrong(*args):
        right = native.compile_loops(*args)
        return lambda *inputs: [value + 0.01 for value in right(*inputs)]

    monkeypatch.setattr(compiling, "compile_loops", wrong)
    with pytest.warns(VitoolsWarning, match="the compiled graph gives other numbers"):
        fit = svi(problem, AutoNormal, max_steps=40, compile=True)
    plain = svi(problem, AutoNormal, max_steps=40, compile=False)
    assert fit.history.elbo == plain.history.elbo


def test_a_function_that_draws_is_not_compiled():
    with seeded(0):
        with pytest.warns(VitoolsWarning, match="it draws random numbers"):
            run = compiled(lambda x: [x + torch.randn(2)], [torch.zeros(2)], "a draw")
        assert run(torch.ones(2))[0].shape == (2,)


# ---- minibatches ---------------------------------------------------------------------------


def test_every_step_sees_another_minibatch_and_the_draw_is_an_input():
    data = torch.arange(100.0)

    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 100.0))
        with pyro.plate("rows", 100, subsample_size=10) as index:
            pyro.sample("y", dist.Normal(mean, 30.0), obs=data[index])

    def guide():
        loc = pyro.param("loc", torch.tensor(50.0))
        pyro.sample("mean", dist.Normal(loc, 1e-9))

    # a guide that stands still: the bounds differ by their minibatches alone
    fit = svi(Problem(model), guide, max_steps=40, learning_rate=1e-12, compile=False)
    assert len({round(bound, 6) for bound in fit.history.elbo}) == 40


def test_data_in_a_file_are_read_batch_by_batch(tmp_path):
    path = tmp_path / "rows.bin"
    size = 1000
    rows = torch.from_file(str(path), shared=True, size=size, dtype=torch.float64)
    rows.copy_(3.0 + torch.randn(size, generator=torch.Generator().manual_seed(0)))

    def model(rows):
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", size, subsample_size=50) as index:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=rows[index])

    fit = svi(Problem(model, rows), AutoNormal, seed=0)
    sd = size**-0.5
    assert fit.status is Status.CONVERGED
    assert float(fit.mean()["mean"]) == pytest.approx(float(rows.mean()), abs=0.5 * sd)


def test_the_rows_of_a_minibatch_are_distinct_and_equally_likely():
    total, size, count = 30, 5, 4000
    with seeded(0):
        draws = torch.stack([distinct(total, size) for _ in range(count)])
        whole = distinct(6, 5)
    assert all(len(draw.unique()) == size for draw in draws)
    assert len(whole.unique()) == 5
    for column in draws.T:
        shares = torch.bincount(column, minlength=total).double() / count
        error = math.sqrt(1 / total * (1 - 1 / total) / count)
        assert bool(((shares - 1 / total).abs() < 4.5 * error).all())


def test_of_a_minibatch_only_its_rows_are_drawn():
    data = torch.arange(1000.0)

    def function(x):
        return [x * data[torch.randperm(1000)[:8].clone()].sum()]

    with seeded(0):
        graph = functional_graph(function, [torch.ones(())])
    with seeded(0):
        (expected,) = function(torch.ones(()))
    with seeded(0):
        (noise,) = graph.draw_as_recorded()
        assert graph.draw(3)[0].shape == (3, 8)
    assert graph([torch.ones(())], [noise])[0] == expected
    targets = [n.target for n in graph.module.graph.nodes]
    assert torch.ops.aten.randperm.default not in targets


@needs_compiler
def test_small_models_with_minibatches_run_as_loops():
    data = torch.linspace(-1.0, 3.0, 1000)

    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", 1000, subsample_size=20) as index:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=data[index])

    options = {"max_steps": 200, "seed": 3}
    plain = svi(Problem(model), AutoNormal, compile=False, **options)
    fast = svi(Problem(model), AutoNormal, compile=True, **options)
    assert "compiled" in fast.detail
    assert fast.history.elbo == pytest.approx(plain.history.elbo, rel=1e-6)


@needs_compiler
@pytest.mark.filterwarnings("error::vitools.errors.VitoolsWarning")
def test_masked_data_are_recorded_and_compiled_also_in_minibatches():
    y = torch.linspace(-1.0, 2.0, 20, dtype=torch.float64)
    seen = torch.arange(20) % 3 > 0
    data = torch.where(seen, y, math.nan)

    def model():
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 3.0))
        with pyro.plate("rows", 20, subsample_size=6) as index:
            pyro.sample("y", dist.Normal(mean, 1.0).mask(seen[index]), obs=data[index])

    options = {"max_steps": 200, "seed": 3}
    plain = svi(Problem(model), AutoNormal, compile=False, **options)
    fast = svi(Problem(model), AutoNormal, compile=True, **options)
    assert fast.detail.endswith("; compiled")
    assert fast.history.elbo == pytest.approx(plain.history.elbo, rel=1e-9)


def test_numbers_read_out_of_a_draw_are_not_frozen_into_the_graph():
    """numpy reads a draw behind torch's back, which a recording takes for a constant."""

    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        shift = torch.as_tensor(3 * m.detach().numpy())
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(m + shift, 1.0), obs=x)

    x = torch.linspace(-9.0, 9.0, 20)
    with pytest.warns(VitoolsWarning, match="cannot be recorded.*gives other numbers"):
        svi(Problem(model, x), AutoNormal(model), max_steps=40, compile=False)
