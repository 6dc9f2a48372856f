"""Densities at many points: derivatives against closed forms, compiled or not, and fresh data."""

import copy
import pickle

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam

from vitools import Problem
from vitools.engines.nuts.chains import WhitenedSpace
from vitools.graphs.loops import find_loop_compiler
from vitools.graphs.over_draws import over_draws
from vitools.isolation import seeded
from vitools.problem.coordinates.density import Density
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.problem.density import vectorise

needs_compiler = pytest.mark.skipif(find_loop_compiler() is None, reason="no C++ compiler")
MANY = 10**9
HOW = [pytest.param(0, id="by torch"), pytest.param(MANY, id="compiled", marks=needs_compiler)]


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def quartic(precision: torch.Tensor, num_points: int) -> Density:
    """log f(u) = -½ uᵀ A u - Σ u⁴."""

    def at(u: torch.Tensor) -> torch.Tensor:
        return -0.5 * u @ precision @ u - (u**4).sum()

    return Density(at, draws(4), Problem(scaled, draws(400, 3)), num_points)


@pytest.mark.parametrize("num_points", HOW)
def test_derivatives_are_those_of_the_formula(num_points: int) -> None:
    root, points, directions = draws(4, 4, seed=1), draws(7, 4, seed=2), draws(7, 4, seed=3)
    precision = root @ root.mT
    density = quartic(precision, num_points)
    values, slopes = density.gradients(points)
    again, products = density.products(points, directions)
    form = -0.5 * (points @ precision * points).sum(-1) - (points**4).sum(-1)
    gradient = -points @ precision - 4 * points**3
    along = -directions @ precision - 12 * points**2 * directions
    torch.testing.assert_close(values, form)
    torch.testing.assert_close(slopes, gradient)
    torch.testing.assert_close(again, gradient)
    torch.testing.assert_close(products, along)
    assert (density._compiled_products is not None) == (num_points == MANY)


@pytest.mark.parametrize("num_points", HOW)
def test_what_is_computed_from_a_density_has_its_gradient(num_points: int) -> None:
    density = quartic(torch.eye(4, dtype=torch.float64), num_points)
    centre, noise = draws(4, seed=4).requires_grad_(), draws(5, 4, seed=5)
    (got,) = torch.autograd.grad(density(centre + noise).mean(), centre)
    points = (centre + noise).detach()
    torch.testing.assert_close(got, (-points - 4 * points**3).mean(0))


def test_a_flat_density_has_no_slope() -> None:
    density = Density(lambda u: torch.zeros(()), draws(3), Problem(scaled, draws(2, 3)), 1)
    _, slopes = density.gradients(draws(2, 3))
    assert torch.equal(slopes, torch.zeros(2, 3, dtype=torch.float64))


def always_repaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectorise, "WORTH_RECORDING", 1.0)
    monkeypatch.setattr("vitools.graphs.over_draws.SECONDS_PER_ELEMENT", 1.0)


def scaled(x: torch.Tensor) -> None:
    location = pyro.sample("location", dist.Normal(torch.zeros(3, dtype=x.dtype), 2.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros((), dtype=x.dtype), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(location, scale.unsqueeze(-1)).to_event(1), obs=x)


@needs_compiler
def test_log_joint_by_machine_code_is_the_same_and_sees_new_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = draws(400, 3, seed=6)
    problem = Problem(scaled, x)
    values = problem.prior(3000)
    plain = problem.log_joint(values)
    pointwise = problem.pointwise_log_likelihood(values)["x"]
    compiled = []
    always_repaid(monkeypatch)

    def watched(*args):
        compiled.append(over_draws(*args))
        return compiled[-1]

    monkeypatch.setattr("vitools.graphs.over_draws.over_draws", watched)
    torch.testing.assert_close(problem.log_joint(values), plain)
    torch.testing.assert_close(problem.pointwise_log_likelihood(values)["x"], pointwise)
    x += 1.0
    expected = (
        dist.Normal(values["location"].unsqueeze(1), values["scale"].reshape(-1, 1, 1))
        .log_prob(x)
        .sum((1, 2))
        + dist.Normal(0.0, 2.0).log_prob(values["location"]).sum(-1)
        + dist.LogNormal(0.0, 1.0).log_prob(values["scale"])
    )
    torch.testing.assert_close(problem.log_joint(values), expected)
    problem.log_joint(problem.prior(2000, seed=1))
    assert len(compiled) == 2  # one program serves all draws; it reads the data where they lie
    assert all(compiled)


@needs_compiler
def test_a_program_that_the_model_has_left_behind_is_written_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = {"mean": 0.0}

    def model(x: torch.Tensor) -> None:
        level = pyro.sample("level", dist.Normal(torch.tensor(prior["mean"]).double(), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    always_repaid(monkeypatch)
    x = draws(20)
    problem = Problem(model, x)
    level = draws(500)
    of_data = dist.Normal(level.unsqueeze(-1), 1.0).log_prob(x).sum(-1)
    for mean in (0.0, 3.0, 3.0):
        prior["mean"] = mean
        expected = of_data + dist.Normal(mean, 1.0).log_prob(level)
        torch.testing.assert_close(problem.log_joint({"level": level}), expected)
    assert len(problem.mapper.programs) == 1


@needs_compiler
def test_programs_are_written_once_and_are_in_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(scaled, draws(400, 3, seed=6))
    space = UnconstrainedSpace(problem)
    points = draws(2, space.size, seed=1)
    first, second = (space.density(points[0], MANY) for _ in range(2))
    expected = first.gradients(points)
    assert first._compiled_gradients is not None
    monkeypatch.setattr("vitools.graphs.over_draws.over_draws", None)
    assert all(map(torch.equal, second.gradients(points), expected))
    assert space.density(points[0], 1)._compiled_gradients is None  # that few are for torch
    programs = problem.mapper.programs
    assert list(programs) == ["gradients"]
    assert dict(copy.deepcopy(programs)) == dict(pickle.loads(pickle.dumps(programs))) == {}


class Shifted(PyroModule):
    """A model with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = PyroParam(torch.zeros(()).double())

    def forward(self, x: torch.Tensor) -> None:
        level = pyro.sample("level", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(level + self.shift, 1.0), obs=x)


@needs_compiler
def test_values_and_parameters_stay_differentiable(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(scaled, draws(20, 3))
    always_repaid(monkeypatch)
    values = {name: value.requires_grad_() for name, value in problem.prior(500).items()}
    problem.log_joint(values).sum().backward()
    residual = values["location"].detach() / 4
    pull = (draws(20, 3) - values["location"].detach().unsqueeze(1)).sum(1)
    slope = pull / values["scale"].detach().unsqueeze(-1) ** 2 - residual
    torch.testing.assert_close(values["location"].grad, slope)

    x = draws(20)
    problem = Problem(Shifted(), x)
    level = {"level": draws(500)}
    (shift,) = problem.params["params"].values()
    (grad,) = torch.autograd.grad(problem.log_joint(level).sum(), shift)
    torch.testing.assert_close(grad, (x - level["level"].unsqueeze(-1)).sum())


def wide(u: torch.Tensor) -> list[torch.Tensor]:
    return [(u * torch.ones(10_000).double()).exp().sum()]


@needs_compiler
def test_only_what_repays_and_follows_from_its_arguments_is_compiled() -> None:
    draws = [torch.tensor([0.5, -0.5]).double()]
    expected = [torch.stack([wide(u)[0] for u in draws[0]])]
    assert over_draws(wide, draws, expected, 10) is None
    assert over_draws(wide, draws, expected, MANY) is not None
    assert over_draws(wide, draws, [expected[0] / 0.0], MANY) is None
    assert over_draws(lambda u: wide(u) if u > 0 else [u], draws, expected, MANY) is None
    with seeded(0):
        assert over_draws(lambda u: [u + torch.randn(9999).sum()], draws, expected, MANY) is None


BEHIND_TORCH = {
    "a count": lambda level, x: (x > level).nonzero().shape[0] / len(x),
    "a selection": lambda level, x: float(len(x[x > level])),
    "numpy": lambda level, x: float(np.asarray(level.detach())),
    "a list": lambda level, x: level.detach().reshape(1).tolist()[0],
    "unique": lambda level, x: float(len(torch.unique((x > level).long().cumsum(0)))),
}


@needs_compiler
@pytest.mark.parametrize("read", BEHIND_TORCH.values(), ids=BEHIND_TORCH)
@pytest.mark.filterwarnings("ignore::vitools.errors.VitoolsWarning")  # that it is slow
def test_numbers_read_behind_torch_s_back_are_read_at_every_draw(
    read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model(x: torch.Tensor) -> None:
        level = pyro.sample("level", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(level + read(level, x), 1.0), obs=x)

    always_repaid(monkeypatch)
    x, level = draws(50), draws(20, seed=9)
    problem = Problem(model, x)
    shift = torch.tensor([read(one, x) for one in level])
    form = dist.Normal((level + shift).unsqueeze(-1), 1.0).log_prob(x).sum(-1)
    form = form + dist.Normal(0.0, 1.0).log_prob(level)
    torch.testing.assert_close(problem.log_joint({"level": level}), form)
    density = UnconstrainedSpace(problem).density(level[:1], MANY)
    slopes = (x - (level + shift).unsqueeze(-1)).sum(-1) - level
    torch.testing.assert_close(density.gradients(level.unsqueeze(-1))[1][:, 0], slopes)
    space = WhitenedSpace(problem, None, 0)
    gradient = space.log_density_and_gradient(True, 10**9)
    torch.testing.assert_close(gradient(level[3:4])[1], slopes[3:4])


def test_a_linear_density_has_no_curvature() -> None:
    density = Density(lambda u: 2 * u.sum(), draws(3), Problem(scaled, draws(2, 3)), 1)
    slopes, products = density.products(draws(5, 3), draws(5, 3))
    assert torch.equal(slopes, torch.full((5, 3), 2.0).double())
    assert torch.equal(products, torch.zeros(5, 3).double())


def test_second_derivatives_through_a_density_are_refused() -> None:
    density = quartic(torch.eye(4).double(), 0)
    points = draws(2, 4).requires_grad_()
    (slopes,) = torch.autograd.grad(density(points).sum() ** 2, points, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slopes.sum().backward()


@needs_compiler
def test_the_space_of_a_problem_gives_one_density_to_all() -> None:
    problem = Problem(scaled, draws(30, 3))
    space = UnconstrainedSpace(problem)
    points = draws(5, space.size, seed=8)
    compiled, by_torch = (space.density(points[0], n) for n in (MANY, 1))
    for one, other in zip(compiled.gradients(points), by_torch.gradients(points), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(compiled(points), space.log_density(points))
    assert compiled._compiled_gradients is not None
    assert by_torch._compiled_gradients is None
