"""Discrete latents whose values cannot be listed: fitted by a guide that draws them."""

import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from vitools import (
    Elbo,
    Problem,
    ScoreFunction,
    cavi,
    compare,
    dadvi,
    exact,
    laplace,
    load,
    nuts,
    save,
    svi,
    to_arviz,
)
from vitools.errors import ModelError, NotSupportedError, OptionError
from vitools.guides import AutoMeanField
from vitools.isolation import isolated, seeded
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

SHAPE, RATE, NOISE = 3.0, 1.0, 1.5
SEEN = torch.tensor([4.2, 0.7], dtype=torch.float64)
MOST = 60  # counts beyond it have probability below 1e-15 under prior and guides
START = {
    "log_rate": torch.tensor([1.2, 0.1], dtype=torch.float64),
    "loc": torch.tensor(0.9, dtype=torch.float64),
    "log_scale": torch.tensor(-0.8, dtype=torch.float64),
}


def counts():
    """λ ~ Gamma(3, 1), n_i ~ Poisson(λ), y_i ~ Normal(n_i, 1.5)."""
    rate = pyro.sample("rate", dist.Gamma(SHAPE, RATE))
    with pyro.plate("rows", 2):
        n = pyro.sample("n", dist.Poisson(rate))
        pyro.sample("y", dist.Normal(n, NOISE), obs=SEEN)


def counts_guide():
    p = {name: pyro.param(name, value.clone()) for name, value in START.items()}
    pyro.sample("rate", dist.LogNormal(p["loc"], p["log_scale"].exp()))
    with pyro.plate("rows", 2):
        pyro.sample("n", dist.Poisson(p["log_rate"].exp()))


def grid():
    """All pairs (n₁, n₂) up to the truncation, and their log-likelihood."""
    n = torch.arange(MOST + 1, dtype=torch.float64)
    pairs = torch.cartesian_prod(n, n)
    return pairs, torch.distributions.Normal(pairs, NOISE).log_prob(SEEN).sum(-1)


def posterior_of_pairs():
    """log p(n, y) with λ integrated out (Gamma-Poisson), and log p(y)."""
    pairs, likelihood = grid()
    total = pairs.sum(-1)
    log_prior = (
        torch.lgamma(SHAPE + total)
        - math.lgamma(SHAPE)
        + SHAPE * math.log(RATE)
        - (SHAPE + total) * math.log(RATE + 2)
        - torch.lgamma(pairs + 1).sum(-1)
    )
    return pairs, log_prior + likelihood, float((log_prior + likelihood).logsumexp(0))


def exact_bound(log_rate, loc, log_scale):
    """E_q log p - log q: a sum over n, and closed forms in log λ ~ Normal(loc, scale²)."""
    n = torch.arange(MOST + 1, dtype=torch.float64)
    mean_log, mean = loc, (loc + (2 * log_scale).exp() / 2).exp()
    prior = SHAPE * math.log(RATE) - math.lgamma(SHAPE) + (SHAPE - 1) * mean_log - RATE * mean
    entropy = loc + 0.5 + log_scale + 0.5 * math.log(2 * math.pi)
    total = prior + entropy
    for i in range(2):
        log_q = n * log_rate[i] - log_rate[i].exp() - torch.lgamma(n + 1)
        log_p = n * mean_log - mean - torch.lgamma(n + 1)
        likelihood = torch.distributions.Normal(n, NOISE).log_prob(SEEN[i])
        total = total + (log_q.exp() * (log_p + likelihood - log_q)).sum()
    return total


def gradients(spec, count):
    """Losses and gradients of ``count`` independent calls, ``[count, …]``."""
    problem = Problem(counts)
    with seeded(0), isolated():
        objective = spec(problem, counts_guide)
        objective.loss()
        parameters = {name: pyro.param(name) for name in START}
        draws = []
        for _ in range(count):
            loss = objective.loss()
            draws.append([loss.detach(), *torch.autograd.grad(loss, list(parameters.values()))])
    losses, *columns = (torch.stack(column) for column in zip(*draws, strict=True))
    return losses, dict(zip(parameters, columns, strict=True))


def maximum(bound, **start):
    """The largest value of a smooth function, by L-BFGS."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.LBFGS(leaves.values(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -bound(**leaves)
        loss.backward()
        return loss

    optimizer.step(closure)
    return -float(closure().detach())


def assert_mean(draws, truth):
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool((error > 0).all())
    assert bool((error < 0.3 * (1 + truth.abs())).all())
    assert bool(((draws.mean(0) - truth).abs() < 4 * error).all())


def test_a_problem_carries_them_and_asks_for_their_values():
    problem = Problem(counts)
    assert list(problem.drawn) == ["rate", "n"]
    assert problem.discrete == {}
    rate, n = torch.tensor([0.5, 2.0]), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    expected = [
        stats.gamma(SHAPE, scale=1 / RATE).logpdf(r)
        + stats.poisson(r).logpmf(k).sum()
        + stats.norm(k, NOISE).logpdf(SEEN).sum()
        for r, k in zip(rate.tolist(), n.numpy(), strict=True)
    ]
    found = problem.log_joint({"rate": rate.double(), "n": n.double()})
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    outside = problem.log_joint({"rate": rate, "n": torch.tensor([[-1.0, 0.0], [0.5, 1.0]])})
    assert outside.tolist() == [-math.inf, -math.inf]
    with pytest.raises(OptionError, match="values for 'n' are missing"):
        problem.log_joint({"rate": rate})
    with pytest.raises(OptionError, match="'n': the values of its support cannot be listed"):
        problem.enumerated_support("n")


def test_the_joint_sums_to_the_conjugate_evidence():
    """Σ_n ∫ p(λ, n, y) dλ, with λ by Gauss-Laguerre, is the closed form."""
    problem = Problem(counts)
    _, _, evidence = posterior_of_pairs()
    nodes, weights = torch.linspace(0.0005, 24.9995, 25_000, dtype=torch.float64), 0.001
    n = torch.arange(MOST + 1, dtype=torch.float64)
    of_counts = stats.poisson(nodes.numpy()).logpmf(n.numpy()[:, None])
    of_data = stats.norm(n.numpy(), NOISE).logpdf(SEEN.numpy()[:, None])
    table = torch.tensor(of_data[:, :, None] + of_counts)
    by_hand = table.logsumexp(1).sum(0)
    prior = torch.tensor(stats.gamma(SHAPE, scale=1 / RATE).logpdf(nodes.numpy()))
    assert float((prior + by_hand).logsumexp(0)) + math.log(weights) == pytest.approx(
        evidence, abs=1e-6
    )
    # and log_joint is the summand: at every pair up to 7 for three rates
    pairs = torch.cartesian_prod(n[:8], n[:8])
    for i in (400, 2_000, 9_000):
        values = {"rate": nodes[i].expand(64), "n": pairs}
        expected = prior[i] + (table[0, :8, i, None] + table[1, None, :8, i]).reshape(-1)
        torch.testing.assert_close(problem.log_joint(values), expected)


@pytest.mark.parametrize(
    "spec",
    [
        ScoreFunction(4),
        pytest.param(ScoreFunction(4, rao_blackwellise=False), marks=pytest.mark.slow),
        pytest.param(Elbo(3), marks=pytest.mark.slow),
    ],
)
def test_the_score_gradient_is_unbiased(spec):
    leaves = {name: value.clone().requires_grad_() for name, value in START.items()}
    loss = -exact_bound(**leaves)
    exact_gradient = torch.autograd.grad(loss, list(leaves.values()))
    losses, found = gradients(spec, 500)
    assert_mean(losses, loss.detach())
    for name, truth in zip(leaves, exact_gradient, strict=True):
        assert_mean(found[name], truth)


def test_a_fit_draws_them_and_weighs_them(tmp_path):
    problem = Problem(counts)
    fit = svi(problem, counts_guide, num_particles=8, max_steps=1000, compile=False)
    pairs, log_joint, evidence = posterior_of_pairs()
    weights = (log_joint - evidence).exp()
    draws, log_q = fit.sample_with_log_prob(4000, seed=1)
    assert draws["n"].shape == (4000, 2)
    torch.testing.assert_close(fit.log_prob(draws), log_q)
    fitted = {k: v.detach() for k, v in fit.params["params"].items()}
    assert float(exact_bound(**fitted)) > maximum(exact_bound, **START) - 0.02
    bound = fit.elbo(4000, seed=2)
    assert bound.value == pytest.approx(float(exact_bound(**fitted)), abs=4 * bound.standard_error)
    # importance weights turn the draws into the posterior's
    log_w = problem.log_joint(draws) - log_q
    shares = log_w.softmax(0)
    estimate = float(log_w.logsumexp(0)) - math.log(4000)
    error = float((shares * 4000).std()) / math.sqrt(4000)
    assert estimate == pytest.approx(evidence, abs=4 * error)
    assert error < 0.1
    for i in range(2):
        truth = float((weights * pairs[:, i]).sum())
        mean = float((shares * draws["n"][:, i]).sum())
        spread = float((shares**2 * (draws["n"][:, i] - mean) ** 2).sum().sqrt())
        assert mean == pytest.approx(truth, abs=4 * spread)
    assert set(fit.mean()) == {"rate", "n"}
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem, counts_guide)
    assert torch.equal(again.sample(5)["n"], fit.sample(5)["n"])
    assert fit.predictive(3)["y"].shape == (3, 2)
    assert to_arviz(fit, num_samples=200).posterior["n"].shape == (1, 200, 2)
    assert "rate" in str(compare({"fit": fit, "again": again}))


def on_the_reals(problem):
    return UnconstrainedSpace(problem).log_density(torch.zeros(1))


@pytest.mark.parametrize(
    ("engine", "subject"),
    [
        (exact, "exact()"),
        (nuts, "nuts()"),
        (dadvi, "dadvi()"),
        (laplace, "laplace()"),
        (cavi, "cavi()"),
        (on_the_reals, "a density over the reals"),
    ],
)
def test_engines_that_sum_or_differentiate_refuse_them(engine, subject):
    words = r"site 'n' \(Poisson\) is a discrete latent whose values cannot be listed, so "
    with pytest.raises(NotSupportedError, match=words + re.escape(subject)) as caught:
        engine(Problem(counts))
    assert "svi() with a guide that draws it" in str(caught.value)


def test_guides_that_leave_them_out_are_refused():
    def only_the_rate():
        pyro.sample("rate", dist.LogNormal(pyro.param("loc", torch.zeros(())), 1.0))

    with pytest.raises(OptionError, match="does not draw n"):
        svi(Problem(counts), only_the_rate)
    with pytest.raises(NotSupportedError, match=r"differentiates .* at 'n'"):
        svi(Problem(counts), counts_guide, objective=Elbo(gradient="sticking_the_landing"))


def test_they_go_together_with_latents_that_are_summed_out():
    """A zero-inflated count: z is enumerated, n is drawn."""

    def model():
        with pyro.plate("rows", 2):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            n = pyro.sample("n", dist.Geometric(0.4))
            pyro.sample("y", dist.Normal(z * n, NOISE), obs=SEEN)

    def guide():
        with pyro.plate("rows", 2):
            pyro.sample("n", dist.Geometric(logits=pyro.param("logits", torch.zeros(2))))

    problem = Problem(model)
    assert (list(problem.discrete), list(problem.drawn)) == (["z"], ["n"])
    n = torch.tensor([[2.0, 0.0]])
    rows = stats.geom(0.4, loc=-1).logpmf(n[0].numpy()).sum()
    likelihood = sum(
        math.log(0.7 * stats.norm(0, NOISE).pdf(y) + 0.3 * stats.norm(k, NOISE).pdf(y))
        for y, k in zip(SEEN.tolist(), n[0].tolist(), strict=True)
    )
    assert float(problem.log_joint({"n": n})) == pytest.approx(rows + likelihood, abs=1e-5)
    fit = svi(problem, guide, num_particles=8, max_steps=600, compile=False)
    draws = fit.sample(50, discrete=True)
    assert set(draws) == {"n", "z"}

    def bound(logits):
        n = torch.arange(300, dtype=torch.float64)
        log_q = torch.distributions.Geometric(logits=logits[:, None]).log_prob(n)
        seen = torch.stack(
            [torch.distributions.Normal(z * n, NOISE).log_prob(SEEN[:, None]) for z in (0.0, 1.0)]
        )
        summed = torch.logaddexp(seen[0] + math.log(0.7), seen[1] + math.log(0.3))
        log_p = torch.distributions.Geometric(0.4).log_prob(n) + summed
        return (log_q.exp() * (log_p - log_q)).sum()

    fitted = fit.params["params"]["logits"].detach()
    assert float(bound(fitted)) > maximum(bound, logits=torch.zeros(2)) - 0.02


def test_automatic_guides_say_that_they_cannot_draw_them():
    with pytest.raises(ModelError, match=r"site 'n' is discrete \(Poisson\)"):
        svi(Problem(counts), AutoMeanField)
