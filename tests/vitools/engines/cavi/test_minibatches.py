"""Minibatch coordinate ascent: the answer and the bound of a fit that sees all rows at once."""

from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, cavi
from vitools.engines.cavi.minibatches.rows import RowBatches
from vitools.errors import ModelError, NotSupportedError, OptionError
from vitools.models.groups import mixed
from vitools.models.mixtures import mixture as shipped_mixture

N = 600


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = normal(N, 3)
NOISE = normal(N, seed=1)
LINE = X.sum(1) + 1 + 0.5 * NOISE
SIDES = (
    torch.rand(N, generator=torch.Generator().manual_seed(2)) < torch.sigmoid(X.sum(1))
).double()
CENTRES = torch.tensor([-4.0, 0.0, 5.0]).double()
CLUSTERS = CENTRES[(NOISE.abs() * 2).long().clamp(max=2)] + X[:, 0]


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    b = pyro.sample("b", dist.Normal(number(0.0), 3.0))
    tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w + b, tau.rsqrt()), obs=y)


def logistic(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def free_form(y):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    scale = pyro.sample("scale", dist.HalfCauchy(number(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, scale), obs=y)


def mixture(y):
    with pyro.plate("components", 3):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
        tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3).double()))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)


def overdispersed(y):
    """A latent of each row below a curved function, beside one of all."""
    mu = pyro.sample("mu", dist.Normal(number(0.0), 3.0))
    tau = pyro.sample("tau", dist.Gamma(number(2.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        eta = pyro.sample("eta", dist.Normal(mu, tau.rsqrt()))
        pyro.sample("y", dist.Poisson(eta.exp()), obs=y)


COUNTS = torch.poisson((0.5 * X[:, 0]).exp(), generator=torch.Generator().manual_seed(3))
CASES = {
    "conjugate, two blocks": (regression, (X, LINE)),
    "curved": (logistic, (X, SIDES)),
    "free form": (free_form, (LINE,)),
    "latents of rows, discrete": (mixture, (CLUSTERS,)),
    "latents of rows, curved": (overdispersed, (COUNTS[:120],)),
}


DEAR = {"latents of rows, curved"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c in DEAR else c for c in CASES]
)
def test_the_answer_is_that_of_all_rows_at_once(case):
    model, data = CASES[case]
    problem = Problem(model, *data)
    whole = cavi(problem, joint=(), nested=())
    fit = cavi(problem, joint=(), batch_rows=len(data[0]) * 3 // 8)
    assert fit.status is Status.CONVERGED
    assert fit.bound == pytest.approx(whole.bound, rel=1e-7)
    for name in problem.continuous:
        order = torch.arange(fit.mean()[name].numel()).reshape(fit.mean()[name].shape)
        if model is mixture and name in ("mu", "tau", "weights"):  # labels are free
            order = fit.mean()["mu"].argsort()[whole.mean()["mu"].argsort().argsort()]
        mean, sd = fit.mean()[name].flatten()[order], fit.sd()[name].flatten()[order]
        gap = (mean - whole.mean()[name]).abs() / whole.sd()[name]
        assert float(gap.max()) < 1e-2
        torch.testing.assert_close(sd, whole.sd()[name], rtol=1e-3, atol=0)


def test_the_exact_bound_is_reported_and_exact_passes_only_rise():
    problem = Problem(mixture, CLUSTERS)
    fit = cavi(problem, batch_rows=200)
    exact = int(fit.detail.split(", ")[1].split()[0])
    assert "passes of steps on 3 batches of 200 rows of 'rows'" in fit.detail
    rising = fit.history.elbo[-exact // 2 :]
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(rising))
    assert fit.history.elbo[-1] == fit.bound
    # the bound with z summed out is at least that, and q(z | θ) of a row is what its factor says
    assert fit.log_weights(200).mean() >= fit.bound - 1.0
    assert fit.marginal("z").probs.shape == (N, 3)


def test_a_model_that_subsamples_means_the_same():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
        with pyro.plate("rows", len(y), subsample_size=50) as rows:
            pyro.sample("y", dist.Normal(x[rows] @ w, number(0.5)), obs=y[rows])

    def plain(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(x @ w, number(0.5)), obs=y)

    fit = cavi(Problem(model, X, LINE), batch_rows=200)
    other = cavi(Problem(plain, X, LINE), batch_rows={"rows": 200})
    assert fit.bound == other.bound
    assert torch.equal(fit.mean()["w"], other.mean()["w"])
    assert fit.bound == pytest.approx(cavi(Problem(plain, X, LINE)).bound, rel=1e-9)


def test_rows_far_from_zero_lose_no_digits():
    data = 1e6 + LINE
    fit, whole = (cavi(Problem(free_form, data), batch_rows=b, joint=()) for b in (200, None))
    assert fit.bound == pytest.approx(whole.bound, abs=1e-4)
    torch.testing.assert_close(fit.sd()["mu"], whole.sd()["mu"], rtol=1e-4, atol=0)


@pytest.mark.slow
def test_equal_rows_and_masked_rows_count_as_they_should():
    def dice(y, mask):
        p = pyro.sample("p", dist.Beta(number(1.0), number(1.0)).expand([2]).to_event(1))
        weight = pyro.sample("weight", dist.Dirichlet(torch.tensor([2.0, 1.0]).double()))
        with pyro.plate("rows", len(y)), pyro.poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Categorical(weight))
            pyro.sample("y", dist.Bernoulli(p[z]), obs=y)

    mask = torch.arange(N) % 5 > 0
    problem = Problem(dice, SIDES, mask)
    fit, whole = cavi(problem, batch_rows=250, tol=1e-6), cavi(problem)
    assert fit.bound == pytest.approx(whole.bound, rel=1e-5)
    assert fit.marginal("z").batch_shape == (N,)


def test_every_row_comes_once_in_a_pass_and_a_seed_repeats():
    batches = RowBatches(Problem(free_form, LINE), 130, lambda *a, **k: None)
    for seed in (0, 1):
        rows = list(batches.shuffled(torch.Generator().manual_seed(seed)))
        assert sorted(len(part) for part in rows) == [80, 130, 130, 130, 130]
        assert torch.equal(torch.cat(rows).sort().values, torch.arange(N))
        assert not torch.equal(torch.cat(rows), torch.arange(N))
    assert torch.equal(torch.cat(list(batches.in_order())), torch.arange(N))
    first, again = (cavi(Problem(regression, X, LINE), batch_rows=200, seed=3) for _ in range(2))
    assert first.history.elbo == again.history.elbo
    assert torch.equal(first.mean()["w"], again.mean()["w"])


def test_rows_held_out_end_the_run_and_are_in_no_step(tmp_path):
    batches = RowBatches(Problem(free_form, LINE), 130, lambda *a, **k: None, 100, 3)
    rows = torch.cat(list(batches.shuffled(torch.Generator().manual_seed(0))))
    assert len(batches.held_out) == 100
    assert torch.equal(torch.cat([rows, batches.held_out]).sort().values, torch.arange(N))
    assert torch.equal(torch.cat(list(batches.in_order())), torch.arange(N))

    problem = Problem(mixture, CLUSTERS)
    options = {"batch_rows": 100, "hold_out": 100}
    fit, whole = cavi(problem, **options), cavi(problem)
    assert fit.status is Status.CONVERGED
    assert (
        "passes of steps on 5 batches of 100 rows of 'rows', the bound of 100 rows held"
        in fit.detail
    )
    # the bound is that of all rows at factors that are not quite their best; the history's an estimate of it
    assert whole.bound * 1.01 < fit.bound < whole.bound  # after fifteen steps or so
    assert fit.history.elbo[-1] - fit.history.elbo[-2] <= 1e-4 * abs(fit.bound)
    assert all(b - a > 1e-4 * abs(b) for a, b in pairwise(fit.history.elbo[:-1]))
    path = tmp_path / "run.ckpt"
    cavi(problem, **options, checkpoint=path, max_sweeps=1)
    again = cavi(problem, **options, checkpoint=path, resume=True)
    assert again.bound == fit.bound
    assert again.history.elbo == fit.history.elbo


def test_two_passes_come_close():
    big = normal(20_000, seed=5)
    data = CENTRES[(normal(20_000, seed=6).abs() * 2).long().clamp(max=2)] + big
    problem = Problem(mixture, data)
    whole = cavi(problem)
    fit = cavi(problem, batch_rows=2000, max_sweeps=3)
    assert fit.status is Status.STOPPED_AT_LIMIT
    assert fit.bound == pytest.approx(whole.bound, rel=1e-3)


def test_shipped_clusters_have_the_priors_of_all_rows():
    problem = Problem(shipped_mixture.model, shipped_mixture.simulate(300, seed=1).data)
    whole, fit = cavi(problem), cavi(problem, batch_rows=120)
    assert fit.status is Status.CONVERGED
    assert fit.bound == pytest.approx(whole.bound, rel=1e-8)
    shares, expected = (found.mean()["weights"].sort().values for found in (fit, whole))
    torch.testing.assert_close(shares, expected, rtol=1e-5, atol=0)


@pytest.mark.slow
def test_shipped_groups_have_the_priors_and_the_groups_of_all_rows():
    normal, counts = mixed.simulate(6, 10, seed=1), mixed.simulate_binomial(8, 8, seed=1)
    for problem in (
        Problem(mixed.model, normal.y, normal.group, normal.x),
        Problem(mixed.binomial, counts.y, counts.group, counts.trials, None, counts.x),
    ):
        whole = cavi(problem, nested=())
        fit = cavi(problem, batch_rows=24, tol=1e-7)
        assert fit.bound == pytest.approx(whole.bound, rel=1e-5)
        gap = (fit.mean()["effect"] - whole.mean()["effect"]).abs() / whole.sd()["effect"]
        assert float(gap.max()) < 0.02


# ---- wrong use ---------------------------------------------------------------------------


def no_plate(x):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def counted(y, n=N):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    with pyro.plate("rows", n):
        pyro.sample("y", dist.Normal(mu, number(1.0)), obs=y)


def closed_over():
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Normal(mu, number(1.0)), obs=LINE)


def centred(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal((x - x.mean(0)) @ w, number(0.5)), obs=y)


def chain(y):
    """Rows that one factor ties."""
    tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        x = pyro.sample("x", dist.Normal(number(0.0), 1.0))
        pyro.sample("y", dist.Normal(x, tau.rsqrt()), obs=y)
    pyro.sample("sum", dist.Normal(x.sum(), number(1.0)), obs=number(0.0))


def degrees(y):
    nu = pyro.sample("nu", dist.Gamma(number(2.0), number(0.1)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.StudentT(nu, number(0.0), number(1.0)), obs=y)


WRONG = {
    "as many as there are": (
        free_form,
        (LINE,),
        {"batch_rows": N},
        "has 600 rows, which one batch",
    ),
    "more than there are": (
        free_form,
        (LINE,),
        {"batch_rows": 10_000},
        "which one batch would hold",
    ),
    "one": (free_form, (LINE,), {"batch_rows": 1}, "whole number of at least 2, got 1"),
    "no number": (free_form, (LINE,), {"batch_rows": 0.5}, "whole number of at least 2, got 0.5"),
    "two plates": (free_form, (LINE,), {"batch_rows": {"a": 2, "b": 3}}, "for one plate"),
    "no such plate": (free_form, (LINE,), {"batch_rows": {"row": 9}}, "no plate 'row'.*rows"),
    "no plate": (no_plate, (X[0],), {"batch_rows": 2}, "no observed site .* stands in a plate"),
    "a plate of fixed length": (counted, (LINE,), {"batch_rows": 90}, "subsample_size and index"),
    "no data among the arguments": (closed_over, (), {"batch_rows": 90}, "no argument of model"),
    "a mean of all rows": (centred, (X, LINE), {"batch_rows": 90}, "depends on which other rows"),
    "tied rows": (chain, (LINE,), {"batch_rows": 90}, "one factor ties the rows of 'rows' through"),
    "data in functions": (degrees, (LINE,), {"batch_rows": 90}, "inside functions of site 'nu'"),
    "held out alone": (free_form, (LINE,), {"hold_out": 90}, "Give batch_rows=, or leave hold_out"),
    "all held out": (
        free_form,
        (LINE,),
        {"batch_rows": 90, "hold_out": 511},
        "not one batch of 90 would be left. Hold out fewer",
    ),
    "one held out": (free_form, (LINE,), {"batch_rows": 90, "hold_out": 1}, "at least 2, got 1"),
    "a part held out": (free_form, (LINE,), {"batch_rows": 90, "hold_out": 0.1}, "got 0.1"),
    "nested": (
        free_form,
        (LINE,),
        {"batch_rows": 90, "nested": ["scale"]},
        "not beside nested sites",
    ),
    "a start": (free_form, (LINE,), {"batch_rows": 90, "start": {"mu": 0.0}}, "not beside a start"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_refused_by_name(case):
    model, data, options, words = WRONG[case]
    with pytest.raises((OptionError, NotSupportedError, ModelError), match=words):
        cavi(Problem(model, *data), **options)
