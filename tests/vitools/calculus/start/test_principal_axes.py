"""Starts of factor models: turned to principal axes, and blind to the unit of the data."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.calculus.start.principal_axes import ROUNDS, rotatable_pairs

ROWS, COLUMNS = 8, 60


def double(x):
    return torch.tensor(x, dtype=torch.float64)


def factor_model(y, size, pattern=None):
    tau = pyro.sample("tau", dist.Gamma(double(1e-8), double(1e-8)))
    with pyro.plate("factors", size, dim=-1):
        alpha = pyro.sample("alpha", dist.Gamma(double(1e-8), double(1e-8)))
        with pyro.plate("rows", y.shape[0], dim=-2):
            w = pyro.sample("w", dist.Normal(double(0.0), alpha.rsqrt()))
        with pyro.plate("columns", y.shape[1], dim=-2):
            x = pyro.sample("x", dist.Normal(double(0.0), double(1.0)))
    loadings = w if pattern is None else w * pattern
    rows = pyro.plate("rows_of_y", y.shape[0], dim=-2)
    with rows, pyro.plate("columns_of_y", y.shape[1], dim=-1):
        pyro.sample("y", dist.Normal(loadings @ x.T, tau.rsqrt()), obs=y)


def two_factors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    w, x, noise = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, 2), (2, COLUMNS), (ROWS, COLUMNS))
    )
    return w @ x, 0.1 * noise


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("size", [2, 4, 10])
def test_factors_are_found_in_any_unit(unit, size):
    signal, noise = two_factors()
    model = ConjugateModel(factor_model, ((signal + noise) * unit, size))
    initialise(model, 0)
    for _ in range(30):
        model.sweep()
    fitted = model.block_of["w"].moments["x", "w"] @ model.block_of["x"].moments["x", "x"].mT
    assert float((fitted / unit - signal).norm()) < float(noise.norm())


def test_the_start_has_orthogonal_loadings():
    signal, noise = two_factors()
    model = ConjugateModel(factor_model, (signal + noise, 3))
    initialise(model, 0)
    w = model.block_of["w"].moments["x", "w"]
    gram = w.mT @ w
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-9 * float(gram.max()))


@pytest.mark.parametrize("streamed_from", [100, 10_000])
@pytest.mark.parametrize("scores_first", [False, True])
def test_the_start_saves_sweeps(scores_first, streamed_from, monkeypatch):
    """After ten sweeps the bound is higher than without the start after its sweeps and twenty more."""
    monkeypatch.setattr("vitools.calculus.streams.stream_plan.STREAMED_ROWS", streamed_from)
    generator = torch.Generator().manual_seed(0)
    rows, size = 500, 5
    w = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, 12, generator=generator, dtype=torch.float64)
    y = torch.randn(rows, 3, generator=generator, dtype=torch.float64) @ w.T + 0.5 * noise

    def model():
        tau = pyro.sample("tau", dist.Gamma(double(0.01), double(0.01)))
        alpha = pyro.sample(
            "alpha", dist.Gamma(double(0.01), double(0.01)).expand([size]).to_event(1)
        )

        def scores():
            with pyro.plate("rows", rows):
                return pyro.sample("x", dist.Normal(torch.zeros(size).double(), 1.0).to_event(1))

        x = scores() if scores_first else None
        with pyro.plate("columns", 12):
            w = pyro.sample("w", dist.Normal(torch.zeros(size).double(), alpha.rsqrt()).to_event(1))
        x = scores() if x is None else x
        with pyro.plate("rows_of_y", rows, dim=-2), pyro.plate("columns_of_y", 12, dim=-1):
            pyro.sample("y", dist.Normal(x @ w.T, tau.rsqrt()), obs=y)

    def reached(seed, sweeps):
        conjugate = ConjugateModel(model)
        initialise(conjugate, seed)
        for _ in range(sweeps):
            conjugate.sweep()
        return conjugate.elbo()

    turned = [reached(seed, 10) for seed in range(3)]
    monkeypatch.setattr(
        "vitools.calculus.start.initialise.turn_to_principal_axes", lambda model: None
    )
    plain = [reached(seed, 10 + ROUNDS + 20) for seed in range(3)]
    assert min(turned) > max(plain)


def test_a_turn_leaves_the_product_as_it_was():
    signal, noise = two_factors()
    model = ConjugateModel(factor_model, (signal + noise, 3))
    initialise(model, 0)
    model.sweep()
    w, x = model.block_of["w"], model.block_of["x"]
    before = (w.mean @ x.mean.mT, w.covariance, w.entropies())
    axes = torch.linalg.qr(torch.arange(9.0).double().reshape(3, 3) + torch.eye(3))[0]
    w.turn(axes)
    x.turn(axes)
    assert torch.allclose(w.mean @ x.mean.mT, before[0], atol=1e-12)
    assert torch.allclose(w.covariance, axes.mT @ before[1] @ axes, atol=1e-12)
    assert torch.allclose(w.entropies(), before[2], atol=1e-12)


def test_only_factors_that_a_rotation_leaves_free_are_turned():
    signal, noise = two_factors()
    y = signal + noise
    pattern = torch.ones(ROWS, 2, dtype=torch.float64)
    pattern[0, 1] = 0
    for arguments, options, expected in (
        ((y, 2), {}, [("w", "x")]),
        ((y, 2), {"factorised": ["w"]}, []),
        ((y, 2, pattern), {}, []),
    ):
        model = ConjugateModel(factor_model, arguments, **options)
        assert [(a.title, b.title) for a, b in rotatable_pairs(model)] == expected
