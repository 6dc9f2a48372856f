"""Maps to supports and the flat unconstrained space, against autograd and quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, special
from torch.distributions import constraints, transforms

from vitools.errors import ModelError, OptionError
from vitools.models import coin
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.supports import from_reals


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SUPPORTS = {
    "real": (constraints.real, 3, lambda y: y),
    "positive": (constraints.positive, 3, lambda y: y),
    "interval": (constraints.interval(-1.0, 2.0), 3, lambda y: y),
    "less than": (constraints.less_than(2.0), 3, lambda y: y),
    "simplex": (constraints.simplex, 3, lambda y: y[..., :-1]),
    "independent": (constraints.independent(constraints.positive, 1), 3, lambda y: y),
    "correlations": (constraints.corr_cholesky, 3, lambda y: _below(y, -1)),
    "cholesky": (constraints.lower_cholesky, 6, lambda y: _below(y, 0)),
    "covariance": (constraints.positive_definite, 6, lambda y: _below(y, 0)),
}


def _below(matrix, offset):
    size = matrix.shape[-1]
    rows, columns = torch.tril_indices(size, size, offset)
    return matrix[..., rows, columns]


@pytest.mark.parametrize("name", SUPPORTS)
def test_maps_are_bijections_with_the_jacobian_of_autograd(name):
    support, size, free = SUPPORTS[name]
    transform = from_reals(support)
    for seed in range(3):
        u = randn(size, seed=seed)
        y = transform(u)
        assert bool(support.check(y).all())
        torch.testing.assert_close(transform.inv(y), u)
        jacobian = torch.autograd.functional.jacobian(lambda v: free(transform(v)), u)
        log_det = transform.log_abs_det_jacobian(u, y).sum()
        torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize("name", ["cholesky", "covariance"])
def test_matrix_maps_work_in_batches_and_under_vmap(name):
    support, size, _ = SUPPORTS[name]
    transform = from_reals(support)
    u = randn(2, 4, size)
    assert transform.forward_shape(u.shape) == (2, 4, 3, 3)
    assert transform.inverse_shape(torch.Size((2, 4, 3, 3))) == u.shape
    mapped = torch.vmap(torch.vmap(transform))(u)
    torch.testing.assert_close(transform(u), mapped)
    torch.testing.assert_close(transform.inv(mapped), u)
    assert transform.log_abs_det_jacobian(u, mapped).shape == (2, 4)


def test_matrix_maps_compose_like_other_transforms():
    cholesky = from_reals(constraints.lower_cholesky)
    assert cholesky == from_reals(constraints.lower_cholesky)
    assert isinstance(from_reals(constraints.positive_definite), transforms.ComposeTransform)
    assert cholesky != from_reals(constraints.positive)


def test_problem_round_trip_of_every_support():
    def model(y):
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("theta", dist.Dirichlet(torch.ones(4)))
        pyro.sample("u", dist.Uniform(-1.0, 3.0))
        pyro.sample("L", dist.LKJCholesky(3, 1.0))
        pyro.sample("S", dist.Wishart(torch.tensor(6.0), torch.eye(2)))
        with pyro.plate("rows", 3):
            pyro.sample("s", dist.Gamma(2.0, 1.0))
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    problem = Problem(model, randn(3))
    values = {k: v for k, v in problem.prior(5).items() if k != "z"}
    unconstrained = problem.unconstrain(values)
    for name, value in problem.constrain(unconstrained).items():
        torch.testing.assert_close(value, values[name], rtol=1e-6, atol=1e-8)
    space = UnconstrainedSpace(problem)
    assert space.size == 2 + 3 + 1 + 3 + 3 + 3
    vector = space.from_values(values)
    assert vector.shape == (5, space.size)
    for name, value in space.to_values(vector).items():
        torch.testing.assert_close(value, values[name], rtol=1e-6, atol=1e-8)
    for name, own in space.slices.items():
        torch.testing.assert_close(vector[:, own], unconstrained[name].reshape(5, -1))
    expected = problem.log_joint(values) + space.log_jacobian(vector)
    torch.testing.assert_close(space.log_density(vector), expected)
    torch.testing.assert_close(space.log_density_at(vector[3]), expected[3])
    total = sum(
        from_reals(problem.latents[k].support)
        .log_abs_det_jacobian(unconstrained[k], values[k])
        .reshape(5, -1)
        .sum(-1)
        for k in values
    )
    torch.testing.assert_close(space.log_jacobian(vector), total)
    with pytest.raises(OptionError, match="site 'z' is discrete: it has no unconstrained"):
        problem.constrain({"z": torch.ones(3)})
    with pytest.raises(OptionError, match="no latent site 'v'"):
        problem.unconstrain({"v": torch.ones(3)})


def test_density_integrates_to_the_evidence():
    flips = coin.simulate(30, seed=2)
    space = UnconstrainedSpace(Problem(coin.model, flips, 2.0, 3.0))
    offset = coin.exact_log_evidence(flips, 2.0, 3.0)

    def density(u):
        return math.exp(float(space.log_density(torch.tensor([u]))) - offset)

    total, error = integrate.quad(density, -12, 12, epsabs=1e-10)
    assert abs(total - 1) < 1e-8 + error
    heads = float(flips.sum())
    exact = special.betaln(2 + heads, 3 + 30 - heads) - special.betaln(2.0, 3.0)
    assert offset == pytest.approx(exact, abs=1e-10)


def test_gradient_of_the_density():
    flips = coin.simulate(30, seed=2)
    space = UnconstrainedSpace(Problem(coin.model, flips))
    u = torch.tensor([0.3], requires_grad=True)
    (gradient,) = torch.autograd.grad(space.log_density_at(u), u)
    # d/du of (1 + heads) log p + (1 + tails) log(1 - p), p = sigmoid(u)
    p, heads = torch.sigmoid(torch.tensor(0.3)), flips.sum()
    expected = (1 + heads) * (1 - p) - (1 + 30 - heads) * p
    torch.testing.assert_close(gradient[0], expected)


def test_initial_points_have_finite_density_and_repeat():
    def model(y):
        s = pyro.sample("s", dist.HalfCauchy(1e3))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Poisson(s), obs=y)

    space = UnconstrainedSpace(Problem(model, torch.tensor([1.0, 0.0, 2.0])))
    points = [space.initial_point(seed) for seed in (0, 0, 1)]
    assert all(bool(torch.isfinite(space.log_density(p))) for p in points)
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])


def test_impossible_data_give_no_start():
    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Uniform(a.exp(), a.exp() + 1), obs=torch.tensor(-1.0))

    space = UnconstrainedSpace(Problem(model))
    with pytest.raises(ModelError, match="no start of finite density found"):
        space.initial_point(0)


def test_space_of_discrete_latents_alone_is_a_point():
    def model():
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))

    space = UnconstrainedSpace(Problem(model))
    assert space.size == 0
    assert space.to_values(torch.zeros(4, 0)) == {}
    assert space.log_jacobian(torch.zeros(4, 0)).tolist() == [0.0] * 4
