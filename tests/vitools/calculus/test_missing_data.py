"""Unobserved entries drop out exactly, also where elements of a Gaussian are coupled."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import (
    assert_bound_matches_monte_carlo,
    assert_never_falls,
    assert_updates_are_optimal,
    fitted,
)
from pyro import poutine, sample

from vitools import Problem, cavi, load, save
from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.start.initialise import initialise
from vitools.engines.cavi.outcome import distributions

_generator = torch.Generator().manual_seed(0)
D, N = 6, 8
Y = torch.randn(D, N, generator=_generator, dtype=torch.float64)
SEEN = torch.rand(D, N, generator=_generator) < 0.7
KNOWN = torch.randn(D, 2, generator=_generator, dtype=torch.float64)
ROWS = torch.arange(N) < 5
DATA = torch.where(SEEN, Y, torch.tensor(50.0, dtype=torch.float64))


def factors(x_mask=True):
    with pyro.plate("n", N), poutine.mask(mask=x_mask):
        return sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def test_bound_is_the_evidence_of_what_was_seen():
    """y_n ~ N(0, WWᵀ + ¼I) over the seen entries alone; what hides behind the mask may be nan."""

    def model():
        x = factors()
        y = dist.Normal(x @ KNOWN.T, 0.5).mask(SEEN.T).to_event(1)
        sample("y", y, obs=torch.where(SEEN, Y, torch.nan).T)

    covariance = KNOWN @ KNOWN.T + 0.25 * torch.eye(D)
    evidence = 0.0
    for n in range(N):
        seen = SEEN[:, n]
        c, y = covariance[seen][:, seen], Y[seen, n]
        fit = y @ torch.linalg.solve(c, y) + torch.linalg.slogdet(c).logabsdet
        evidence -= 0.5 * float(fit + len(y) * math.log(2 * math.pi))
    with pyro.validation_enabled(False):
        _, bounds = fitted(model, sweeps=1)
    assert bounds[0] == pytest.approx(evidence, rel=1e-12)


def bayesian_pca():
    """Both factors unknown, relevances of the components, a mask on the data."""
    relevance = sample("relevance", dist.Gamma(torch.ones(2), 1.0).to_event(1))
    tau = sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("d", D, dim=-2):
        w = sample("w", dist.Normal(torch.zeros(1, 2), relevance.rsqrt()).to_event(1))
    with pyro.plate("n", N, dim=-1):
        x = sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("d2", D, dim=-2), pyro.plate("n2", N, dim=-1):
        sample("y", dist.Normal((w * x).sum(-1), tau.rsqrt()).mask(SEEN), obs=DATA)


def padded_rows():
    """Whole rows are masked, their factors among them."""
    tau = sample("tau", dist.Gamma(1.0, 1.0))
    w = sample("w", dist.Normal(torch.zeros(D, 2), 1.0).to_event(2))
    x = factors(ROWS)
    with pyro.plate("rows", N), poutine.mask(mask=ROWS):
        sample("y", dist.Normal(x @ w.T, tau.rsqrt()).to_event(1), obs=Y.T)


def imputed():
    """Unseen entries are latents of their own."""
    tau = sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("d", D, dim=-2):
        w = sample("w", dist.Normal(torch.zeros(1, 2), 1.0).to_event(1))
    with pyro.plate("n", N, dim=-1):
        x = sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("entries", D, dim=-2):
            sample("y", dist.Normal((w * x).sum(-1), tau.rsqrt()), obs=Y, obs_mask=SEEN)


@pytest.mark.parametrize("model", [bayesian_pca, padded_rows, imputed])
def test_coupled_factors(model):
    conjugate, bounds = fitted(model)
    assert isinstance(conjugate.block_of["w"], GaussianBlock)
    assert isinstance(conjugate.block_of["x"], GaussianBlock)
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)
    assert_bound_matches_monte_carlo(conjugate, model, ())


def test_padded_rows_change_nothing():
    """The bound of the padded model is that of the rows alone."""

    def rows_alone():
        tau = sample("tau", dist.Gamma(1.0, 1.0))
        w = sample("w", dist.Normal(torch.zeros(D, 2), 1.0).to_event(2))
        with pyro.plate("n", 5):
            x = sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            sample("y", dist.Normal(x @ w.T, tau.rsqrt()).to_event(1), obs=Y.T[:5])

    padded, plain = ConjugateModel(padded_rows), ConjugateModel(rows_alone)
    initialise(plain, 0)
    for name in ("tau", "w"):
        padded.block_of[name].restore(plain.block_of[name].natural)
    for model in (padded, plain):
        model.update(model.block_of["x"])
        model.sweep()
    assert padded.elbo() == pytest.approx(plain.elbo(), rel=1e-12)


def covariates():
    """Unseen covariates of one row share a factor; the seen ones beside them drop out."""
    slopes = sample("slopes", dist.Normal(torch.zeros(D), 1.0).to_event(1))
    tau = sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("n", N):
        with pyro.plate("d", D, dim=-2):
            x = sample("x", dist.Normal(0.0, 1.0), obs=Y, obs_mask=SEEN)
        sample("y", dist.Normal((x * slopes[:, None]).sum(-2), tau.rsqrt()), obs=Y[0] - 1)


@pytest.mark.parametrize("factorised", [(), ("x_unobserved",)])
def test_a_mask_inside_one_factor(factorised):
    conjugate, bounds = fitted(covariates, factorised=factorised)
    block = conjugate.block_of["x_unobserved"]
    assert isinstance(block, GaussianBlock)
    assert_never_falls(bounds)
    assert_bound_matches_monte_carlo(conjugate, covariates, ())
    if not factorised:  # else an update is the best of each element, not of all at once
        assert_updates_are_optimal(conjugate)
        entropy = float(distributions(conjugate)["x_unobserved"].entropy().sum())
        assert entropy == pytest.approx(float(block.entropies().sum()), rel=1e-10)


def test_a_wishart_of_one_dimension_is_a_gamma():
    """Wishart(ν, V) = Gamma(ν/2, 1/(2V))."""

    def wishart():
        precision = sample(
            "tau", dist.Wishart(torch.tensor(5.0), covariance_matrix=2 * torch.eye(1))
        )
        mean = sample("mean", dist.MultivariateNormal(torch.zeros(1), torch.eye(1)))
        with pyro.plate("n", N):
            y = dist.MultivariateNormal(mean, precision_matrix=precision)
            sample("y", y, obs=Y[0].unsqueeze(-1))

    def gamma():
        tau = sample("tau", dist.Gamma(2.5, 0.25))
        mean = sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("n", N):
            sample("y", dist.Normal(mean, tau.rsqrt()), obs=Y[0])

    matrix, number = fitted(wishart, sweeps=30)[0], fitted(gamma, sweeps=30)[0]
    assert matrix.elbo() == pytest.approx(number.elbo(), rel=1e-10)
    mean = distributions(matrix)["tau"].mean.squeeze()
    assert float(mean) == pytest.approx(float(distributions(number)["tau"].mean), rel=1e-6)


def seen_entries_again():
    """y is seen where SEEN, a latent that nothing reads elsewhere: evidence of what was seen."""
    m = sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("d", D, dim=-2), pyro.plate("n", N, dim=-1):
        sample("y", dist.Normal(m, 1.0), obs=torch.where(SEEN, Y, torch.nan), obs_mask=SEEN)
    sample("u", dist.Normal(m, 1.0), obs=torch.tensor(0.3))


def mixture_with_gaps():
    """Two readings of each row share a component; the unseen ones depend on it."""
    weights = sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("components", 2):
        mean = sample("mean", dist.Normal(torch.tensor([-1.0, 1.0]), 0.5))
    with pyro.plate("n", N):
        z = sample("z", dist.Categorical(weights))
        with pyro.plate("d", 2, dim=-2):
            gappy = torch.where(SEEN[:2], Y[:2], torch.nan)
            sample("y", dist.Normal(mean[z], 0.7), obs=gappy, obs_mask=SEEN[:2])


@pytest.mark.filterwarnings("ignore:.*z selects the prior of y_unobserved:UserWarning")
def test_elements_with_discrete_parents_that_q_leaves_out():
    """They cancel in the weights, and are drawn from their mixture given what was seen."""
    problem = Problem(mixture_with_gaps)
    fit = cavi(problem, max_sweeps=50)
    values, log_q = fit.sample_with_log_prob(2000, seed=5)
    theta = {k: values[k].double() for k in ("weights", "mean")}
    y = values["y_unobserved"].double()
    seen = SEEN[:2].unsqueeze(-1)
    each = dist.Normal(theta["mean"][:, None, None], 0.7)
    cases = theta["weights"].log().unsqueeze(1)  # [draws, 1, components]
    cases = cases + torch.where(seen, each.log_prob(Y[:2].unsqueeze(-1)), 0.0).sum(1)
    unseen = torch.where(seen, 0.0, each.log_prob(y.unsqueeze(-1))).sum(1)
    prior = dist.Dirichlet(torch.ones(2)).log_prob(theta["weights"])
    prior = prior + dist.Normal(torch.tensor([-1.0, 1.0]), 0.5).log_prob(theta["mean"]).sum(-1)
    log_joint = (cases + unseen).logsumexp(-1).sum(-1) + prior
    made = {name: fit.marginal(name) for name in fit.problem.drawn}
    log_made = made["weights"].log_prob(theta["weights"]) + made["mean"].log_prob(
        theta["mean"]
    ).sum(-1)
    log_made = log_made + made["y_unobserved"].log_prob(y).sum((-2, -1))
    weights = problem.log_joint(values) - log_q
    torch.testing.assert_close(weights.double(), log_joint - log_made, rtol=1e-4, atol=1e-4)

    components = (cases + unseen).softmax(-1)
    expected = (components * theta["mean"].unsqueeze(1)).sum(-1).unsqueeze(1)
    off = (y - expected)[:, SEEN[:2]]
    error = off.std(0) / len(off) ** 0.5
    assert bool((off.mean(0).abs() < 4 * error).all())
    left_out = fit.mean()["y_unobserved"][SEEN[:2]]
    spread = fit.sd()["y_unobserved"][SEEN[:2]] / 4000**0.5
    assert bool(((left_out - expected.expand_as(y)[:, SEEN[:2]].mean(0)).abs() < 6 * spread).all())


@pytest.mark.parametrize(
    "model", [seen_entries_again, pytest.param(imputed, marks=pytest.mark.slow), covariates]
)
def test_weights_of_the_posterior_are_those_of_the_problem(model, tmp_path):
    """Masked elements follow their prior in q and in the problem alike."""
    problem = Problem(model)
    fit = cavi(problem, max_sweeps=50)
    save(fit, tmp_path / "fit")
    for q in (fit, load(tmp_path / "fit", problem)):
        weights = q.log_weights(400, seed=3)
        error = float(weights.std()) / 20
        assert abs(float(weights.mean()) - fit.bound) <= 4 * error + 1e-9 * abs(fit.bound)


def test_collapsed_rows_stay_masked():
    flips = (torch.arange(60) % 4 < 2).double()

    def model():
        with pyro.plate("k", 2):
            p = sample("p", dist.Beta(1.0, 2.0))
        with pyro.plate("n", 60), poutine.mask(mask=torch.arange(60) % 2 == 0):
            z = sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
            sample("x", dist.Bernoulli(p[z]), obs=flips)

    z = torch.zeros(60, dtype=torch.long)
    both = [cavi(Problem(model), collapse=c).marginal("z").log_prob(z) for c in (True, False)]
    assert both[0][1::2].abs().max() == 0
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-3)
