"""cavi() against hand-derived updates, published figures, and its own promises."""

import itertools
import math
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.engines.cavi.cavi import cavi
from vitools.engines.cavi.outcome import distributions, factors
from vitools.errors import OptionError
from vitools.models import two_dice
from vitools.posterior import Status
from vitools.problem import Problem

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"


def double(x):
    return torch.tensor(x, dtype=torch.float64)


def normal(mean, precision):
    return dist.Normal(double(mean), double(precision).rsqrt())


@pytest.mark.parametrize("factorisation", ["factorised", "joint"])
def test_two_dice_equals_the_hand_derivation_update_by_update(factorisation):
    rolls = two_dice.simulate(num_rows=300, seed=1).rolls
    generator = torch.Generator().manual_seed(5)
    init = two_dice.Concentrations(
        *(1 + torch.rand(s, generator=generator, dtype=torch.float64) for s in ((3,), (4,), (6, 6)))
    )
    hand = two_dice.hand_derived_cavi(
        rolls, factorisation=factorisation, init=init, max_sweeps=8, tol=0
    )
    model = ConjugateModel(
        two_dice.model,
        (rolls,),
        joint=[("z1", "z2")] if factorisation == "joint" else (),
        order=["z1", "z2", "pi1", "pi2", "rho"],
    )
    initialise(model, 0)
    for name, start in zip(("pi1", "pi2", "rho"), init, strict=True):
        model.block_of[name].restore((start - 1,))
    if factorisation == "factorised":
        z2 = model.block_of["z2"]
        z2.restore(((init.alpha2 / init.alpha2.sum()).log().expand(z2.natural[0].shape),))
    for sweep in range(8):
        model.sweep()
        assert model.elbo() == pytest.approx(hand.elbo_history[sweep], rel=1e-13, abs=1e-10)
    q = factors(model)
    assert torch.allclose(q["pi1"].concentration, hand.alpha1_hat, atol=1e-10, rtol=0)
    assert torch.allclose(q["pi2"].concentration, hand.alpha2_hat, atol=1e-10, rtol=0)
    assert torch.allclose(q["rho"].concentration, hand.beta_hat, atol=1e-10, rtol=0)
    by_hand = hand.factors()
    for block in [("z1", "z2")] if factorisation == "joint" else ["z1", "z2"]:
        assert torch.allclose(q[block].probs, by_hand[block].probs, atol=1e-10, rtol=0)


def test_infer_net_moments_and_evidence():
    def model():
        prec = pyro.sample("prec", dist.Gamma(double(1.0), double(1.0)))
        m = pyro.sample("m", normal(0.0, 10.0))
        x = pyro.sample("x", dist.Normal(m, prec.rsqrt()))
        pyro.sample("y", dist.Normal(x, 1.0), obs=double(0.5))

    fit = cavi(Problem(model), joint=(), tol=1e-14)
    tau, m, x = (fit.marginal(name) for name in ("prec", "m", "x"))
    log_tau = torch.digamma(tau.concentration) - tau.rate.log()
    found = [tau.mean, log_tau, m.mean, m.mean**2 + m.variance, x.mean, x.mean**2 + x.variance]

    # The fixed point, by hand.
    e_tau, e_m, e_x, v_m, v_x = 1.0, 0.0, 0.0, 0.1, 1.0
    for _ in range(200):
        v_x = 1 / (1 + e_tau)
        e_x = v_x * (0.5 + e_tau * e_m)
        v_m = 1 / (10 + e_tau)
        e_m = v_m * e_tau * e_x
        rate = 1 + 0.5 * ((e_x - e_m) ** 2 + v_x + v_m)
        e_tau = 1.5 / rate
    e_log = float(torch.digamma(double(1.5))) - math.log(rate)
    truth = [e_tau, e_log, e_m, e_m**2 + v_m, e_x, e_x**2 + v_x]
    assert [float(value) for value in found] == pytest.approx(truth, abs=1e-10)

    # Infer.NET's printed moments stop up to 1e-6 short of it.
    published = [1.15259073127590, -0.22696291577087, 0.02541152365878, 0.09031101023371,
                 0.24588461067251, 0.52501573430760]  # fmt: skip
    assert [float(value) for value in found] == pytest.approx(published, abs=1e-6)
    assert fit.elbo().value == pytest.approx(-1.5888991, abs=5e-8)


def test_infer_net_mean_and_precision():
    def model(data):
        mean = pyro.sample("mean", normal(0.0, 0.01))
        precision = pyro.sample("precision", dist.Gamma(double(1.0), double(1.0)))
        with pyro.plate("rows", 2):
            pyro.sample("x", dist.Normal(mean, precision.rsqrt()), obs=data)

    fit = cavi(Problem(model, double([5.0, 7.0])), tol=1e-14)
    mean, precision = fit.marginal("mean"), fit.marginal("precision")
    assert float(mean.mean) == pytest.approx(5.9603207170807826, abs=1e-10)
    assert float(mean.variance) == pytest.approx(0.66132138200164436, abs=1e-10)
    assert float(precision.concentration) == pytest.approx(2.0, abs=1e-12)
    assert float(precision.rate) == pytest.approx(2.6628958274937107, abs=1e-10)


def test_shared_variables_in_a_sum_of_products():
    """Maximised numerically over the same family: -3.57990 (products treated as dependent)."""

    def model():
        a, b, c = (
            pyro.sample(n, normal(m, 10.0)) for n, m in zip("abc", (-1.0, 2.0, 10.0), strict=True)
        )
        pyro.sample("x", dist.Normal(a * b + b * c, double(10.0).rsqrt()), obs=double(18.0))

    assert cavi(Problem(model)).elbo().value == pytest.approx(-3.57990, abs=5e-6)


def pca(y, components=10):
    rows, columns = y.shape
    tau = pyro.sample("tau", dist.Gamma(double(0.01), double(0.01)))
    factors = pyro.plate("factors", components, dim=-1)
    with factors:
        alpha = pyro.sample("alpha", dist.Gamma(double(0.01), double(0.01)))
        with pyro.plate("rows", rows, dim=-2):
            w = pyro.sample("W", dist.Normal(double(0.0), alpha.rsqrt()))
        with pyro.plate("columns", columns, dim=-2):
            x = pyro.sample("X", dist.Normal(double(0.0), double(1.0)))
    with pyro.plate("rows_of_y", rows, dim=-2), pyro.plate("columns_of_y", columns, dim=-1):
        pyro.sample("Y", dist.Normal(w @ x.T, tau.rsqrt()), obs=y)


# BayesPy's bound after 200 iterations, full covariances per row and column.
PUBLISHED_BOUND = -5033.294963


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("accelerate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bayesian_pca_reaches_the_published_bound(accelerate):
    y = torch.from_numpy(np.load(SHARED / "bayespy_pca" / "pca-small-data.npy")).double()
    fit = cavi(Problem(pca, y), max_sweeps=200, restarts=2, accelerate=accelerate)
    assert min(fit.restart_bounds) >= PUBLISHED_BOUND
    bounds = fit.history.elbo
    assert all(b >= a - 1e-8 * abs(a) for a, b in itertools.pairwise(bounds))


def coin(flips):
    p = pyro.sample("p", dist.Beta(double(1.0), double(1.0)))
    with pyro.plate("flips", len(flips)):
        pyro.sample("heads", dist.Bernoulli(p), obs=flips)


def test_the_fit_is_a_posterior():
    fit = cavi(Problem(coin, double([1.0, 1.0, 0.0])))
    assert fit.status is Status.CONVERGED
    assert fit.elbo().standard_error == 0
    assert fit.marginal("p").mean == pytest.approx(0.6)
    assert fit.sample(10, seed=1)["p"].shape == (10,)
    assert torch.allclose(
        fit.log_prob({"p": double([0.3])}), dist.Beta(3.0, 2.0).log_prob(double([0.3]))
    )


def test_acceleration_saves_sweeps_and_keeps_the_fixed_point():
    rolls = two_dice.simulate(num_rows=200, seed=2).rolls
    problem = Problem(two_dice.model, rolls)
    joint = [("z1", "z2")]
    plain = cavi(problem, joint=joint, accelerate=False, max_sweeps=20_000)
    fast = cavi(problem, joint=joint, max_sweeps=20_000)
    assert fast.status is Status.CONVERGED
    assert fast.history.steps[-1] < plain.history.steps[-1] / 2
    assert fast.elbo().value >= plain.elbo().value - 1e-4
    bounds = fast.history.elbo
    assert all(b >= a - 1e-8 * abs(a) for a, b in itertools.pairwise(bounds))


def test_restarts_keep_the_best_and_seeds_repeat():
    problem = Problem(two_dice.model, two_dice.simulate(num_rows=100, seed=3).rolls)
    fit = cavi(problem, restarts=3, max_sweeps=50)
    assert fit.elbo().value == max(fit.restart_bounds)
    assert len(set(fit.restart_bounds)) > 1
    assert cavi(problem, restarts=3, max_sweeps=50).restart_bounds == fit.restart_bounds


def test_distinct_rows_change_nothing():
    rolls = two_dice.simulate(num_rows=400, num_rolls=3, seed=4).rolls
    collapsed = ConjugateModel(two_dice.model, (rolls,))
    plain = ConjugateModel(two_dice.model, (rolls,), collapse=False)
    assert collapsed.block_of["z1"].batch_shape[0] < 60
    for model in (collapsed, plain):
        initialise(model, 0)
        for name in ("z1", "z2"):
            block = model.block_of[name]
            block.restore((torch.zeros_like(block.natural[0]),))
        for _ in range(5):
            model.sweep()
    assert collapsed.elbo() == pytest.approx(plain.elbo(), rel=1e-12)
    for name, q in distributions(collapsed).items():
        other = distributions(plain)[name]
        assert torch.allclose(
            q.probs if name[0] == "z" else q.mean, other.probs if name[0] == "z" else other.mean
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_sweeps": 0}, "max_sweeps"),
        ({"tol": -1.0}, "tol"),
        ({"joint": [("p", "q")]}, "no latent site 'q'"),
        ({"joint": ["p[flips]"]}, "is not in plate 'flips'"),
        ({"order": ["q"]}, "no latent site 'q'"),
        ({"factorised": ["q"]}, "no latent site 'q'"),
        ({"factorised": "p"}, "factorised: expected a list"),
        ({"joint": "p"}, "joint: expected a list"),
        ({"joint": [("p",)]}, "names one site"),
        ({"tol": "tiny"}, "tol"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(OptionError, match=words.replace("[", r"\[")):
        cavi(Problem(coin, double([1.0, 0.0])), **options)
