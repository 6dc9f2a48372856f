"""Posteriors given by Pyro's own guides, trained by Pyro's own SVI."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch import distributions as td

from vitools.errors import NotSupportedError
from vitools.guides import AutoKumaraswamy
from vitools.isolation import seeded
from vitools.posterior import GuidePosterior, Status
from vitools.problem import Problem

COMMON = {"engine": "pyro", "status": Status.CONVERGED}


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    s = pyro.sample("s", dist.Gamma(2.0, 1.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("groups", 3):
        b = pyro.sample("b", dist.Normal(0.0, share + 0.5))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w + b.sum(-1), s.rsqrt()), obs=y)


X, Y = randn(8, 2).double(), randn(8, seed=1).double()


def trained(problem, make, steps=20, seed=0, **options):
    """A guide after a few steps of Pyro's SVI in a store of its own, with that store's state."""
    guide = make(problem.model, **options)
    state = {"params": {}, "constraints": {}}
    with seeded(seed), pyro.get_param_store().scope(state):
        train(problem, guide, steps)
    return guide, state


def train(problem, guide, steps):
    optimiser = pyro.optim.Adam({"lr": 0.02})
    svi = SVI(problem.model, guide, optimiser, Trace_ELBO())
    for _ in range(steps):
        svi.step(*problem.args, **problem.kwargs)


GUIDES = [
    AutoNormal,
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoLowRankMultivariateNormal,
    AutoKumaraswamy,
]


@pytest.fixture(scope="module")
def problem():
    torch.set_default_dtype(torch.float64)
    made = Problem(model, X, Y)
    torch.set_default_dtype(torch.float32)
    return made


@pytest.mark.parametrize("make", GUIDES)
def test_density_of_own_draws_is_the_density_returned(problem, make):
    guide, params = trained(problem, make)
    fit = GuidePosterior(problem, guide, params, **COMMON)
    values, log_q = fit.sample_with_log_prob(20, seed=1)
    assert {k: tuple(v.shape[1:]) for k, v in values.items()} == {
        k: tuple(s.shape) for k, s in problem.latents.items()
    }
    torch.testing.assert_close(fit.log_prob(values), log_q, rtol=1e-6, atol=1e-6)
    shaped = {k: v.reshape(4, 5, *v.shape[1:]) for k, v in values.items()}
    torch.testing.assert_close(fit.log_prob(shaped), log_q.reshape(4, 5), rtol=1e-6, atol=1e-6)
    again, _ = fit.sample_with_log_prob(20, seed=1)
    other, _ = fit.sample_with_log_prob(20, seed=2)
    assert all(torch.equal(again[k], values[k]) for k in values)
    assert not torch.equal(other["w"], values["w"])


def test_density_is_that_of_the_transformed_gaussian(problem):
    guide, params = trained(problem, AutoDiagonalNormal)
    fit = GuidePosterior(problem, guide, params, **COMMON)
    values, log_q = fit.sample_with_log_prob(10)
    with pyro.get_param_store().scope(params):
        loc = pyro.param("AutoDiagonalNormal.loc").detach()
        scale = pyro.param("AutoDiagonalNormal.scale").detach()
    stick = td.biject_to(td.constraints.simplex)
    u = stick.inv(values["share"])
    vector = torch.cat([values["w"], values["s"].log()[:, None], u, values["b"]], 1)
    expected = td.Normal(loc, scale).log_prob(vector).sum(1)
    expected = expected - values["s"].log() - stick.log_abs_det_jacobian(u, values["share"])
    torch.testing.assert_close(log_q, expected)


def test_bound_is_pyros(problem):
    guide, params = trained(problem, AutoNormal)
    fit = GuidePosterior(problem, guide, params, **COMMON)
    ours = fit.elbo(4000, seed=1)
    elbo = Trace_ELBO()
    with seeded(2), pyro.get_param_store().scope(params):
        theirs = -torch.tensor([elbo.loss(model, guide, X, Y) for _ in range(800)])
    error = math.hypot(ours.standard_error, float(theirs.std()) / math.sqrt(800))
    assert abs(ours.value - float(theirs.mean())) < 4.5 * error


@pytest.mark.parametrize("make", [AutoNormal, AutoMultivariateNormal, AutoKumaraswamy])
def test_later_training_of_the_same_guide_changes_nothing(problem, make):
    guide, params = trained(problem, make)
    fit = GuidePosterior(problem, guide, params, **COMMON)
    values, log_q = fit.sample_with_log_prob(10, seed=1)
    means = fit.mean()
    with seeded(5), pyro.get_param_store().scope(params):  # the very tensors it was made from
        train(problem, guide, 20)
    with seeded(6), pyro.get_param_store().scope():  # and those the module holds now
        train(problem, guide, 20)
    again, log_q_again = fit.sample_with_log_prob(10, seed=1)
    assert all(torch.equal(again[k], values[k]) for k in values)
    assert torch.equal(log_q, log_q_again)
    torch.testing.assert_close(fit.log_prob(values), log_q, rtol=1e-6, atol=1e-6)
    fresh = GuidePosterior(problem, guide, fit.params, **COMMON)
    assert all(torch.equal(fresh.mean()[k], means[k]) for k in means)


def test_using_a_fit_leaves_the_guide_as_it_is(problem):
    guide, params = trained(problem, AutoNormal)
    fit = GuidePosterior(problem, guide, params, **COMMON)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(1.0)
    before = {k: (id(v), v.detach().clone()) for k, v in guide.named_parameters()}
    fit.sample(5)
    fit.log_prob(fit.sample(5))
    for name, parameter in guide.named_parameters():
        assert (id(parameter), True) == (before[name][0], torch.equal(parameter, before[name][1]))


def test_marginals_are_those_of_the_guide(problem):
    guide, params = trained(problem, AutoKumaraswamy)
    fit = GuidePosterior(problem, guide, params, **COMMON)
    marginal = fit.marginal("w")
    draws = fit.sample(8000, seed=1)["w"]
    error = draws.std(0) / math.sqrt(8000)
    assert bool(((marginal.mean - draws.mean(0)).abs() < 4.5 * error).all())
    with pyro.get_param_store().scope(), seeded(1):
        train(problem, guide, 1)
    torch.testing.assert_close(fit.marginal("w").mean, marginal.mean)
    normal = GuidePosterior(problem, *trained(problem, AutoNormal), **COMMON)
    with pytest.raises(NotSupportedError, match="marginal of 'w' under pyro has no closed form"):
        normal.marginal("w")


def test_guides_whose_density_cannot_be_evaluated_say_so(problem):
    with seeded(0):
        guide, params = trained(problem, AutoIAFNormal, hidden_dim=[9])
    fit = GuidePosterior(problem, guide, params, **COMMON)
    values, log_q = fit.sample_with_log_prob(5)
    torch.testing.assert_close(fit.log_prob(values), log_q, rtol=1e-5, atol=1e-5)

    def halves(x, y):
        root = pyro.sample("root", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("mu", dist.Delta(root / 2, log_density=torch.tensor(math.log(2.0))))

    def simple(x, y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fit = GuidePosterior(Problem(simple, X, Y), halves, {"params": {}, "constraints": {}}, **COMMON)
    values, log_q = fit.sample_with_log_prob(6)
    torch.testing.assert_close(log_q, td.Normal(0.0, 0.5).log_prob(values["mu"]))
    with pytest.raises(NotSupportedError, match="guide halves draws 'mu', 'root' through a transf"):
        fit.log_prob(values)


def test_a_guide_that_forgets_a_site_is_refused(problem):
    def forgetful(x, y):
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    fit = GuidePosterior(problem, forgetful, {"params": {}, "constraints": {}}, **COMMON)
    with pytest.raises(NotSupportedError, match="guide forgetful does not draw 's', 'share', 'b'"):
        fit.sample(3)


def test_lists_of_guides():
    def two(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        s = pyro.sample("s", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(w.sum(-1), s.rsqrt()), obs=y)

    def make(target):
        guide = AutoGuideList(target)
        guide.append(AutoNormal(poutine.block(target, expose=["s"])))
        guide.append(AutoMultivariateNormal(poutine.block(target, expose=["w"])))
        return guide

    guide, params = trained(Problem(two, Y), make)
    values, log_q = GuidePosterior(Problem(two, Y), guide, params, **COMMON).sample_with_log_prob(9)
    with pyro.get_param_store().scope(params):
        found = {k.rpartition(".")[2]: v.detach() for k, v in pyro.get_param_store().items()}
        root = found["scale"][..., None] * found["scale_tril"]
        loc_s, scale_s = (
            pyro.param(f"AutoGuideList.0.{which}.s").detach() for which in ("locs", "scales")
        )
    expected = td.LogNormal(loc_s, scale_s).log_prob(values["s"])
    expected = expected + td.MultivariateNormal(found["loc"], scale_tril=root).log_prob(values["w"])
    torch.testing.assert_close(log_q, expected)


# ---- discrete latents, minibatches, parameters ------------------------------------------------


def mixture(y, size=None):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y), subsample_size=size) as rows:
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y[rows])


def test_discrete_sites_of_a_guide_do_not_count():
    def guide(y, size=None):
        pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 0.5).to_event(1))
        with pyro.plate("rows", len(y), subsample_size=size):
            pyro.sample("z", dist.Categorical(torch.tensor([0.9, 0.1])))

    problem = Problem(mixture, Y)
    fit = GuidePosterior(problem, guide, {"params": {}, "constraints": {}}, **COMMON)
    values, log_q = fit.sample_with_log_prob(7)
    expected = td.Normal(torch.tensor([-1.0, 1.0]), 0.5).log_prob(values["mu"]).sum(1)
    torch.testing.assert_close(log_q, expected)
    torch.testing.assert_close(fit.log_prob(values), expected)
    rows = torch.tensor([0.3, 0.7]).log() + td.Normal(values["mu"][:, None], 1.0).log_prob(
        Y[:, None]
    )
    log_joint = td.Normal(0.0, 1.0).log_prob(values["mu"]).sum(1) + rows.logsumexp(-1).sum(1)
    torch.testing.assert_close(fit.log_weights(7), log_joint - expected)


def test_continuous_draws_that_follow_discrete_ones_are_refused():
    def guide(y, size=None):
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
        pyro.sample("mu", dist.Normal(z.double().mean() * torch.ones(2), 0.5).to_event(1))

    fit = GuidePosterior(Problem(mixture, Y), guide, {"params": {}, "constraints": {}}, **COMMON)
    with pytest.raises(NotSupportedError, match="guide guide draws other latents given 'z'"):
        fit.sample(3)


def test_a_guide_with_local_latents_spans_all_rows():
    def model(y, size):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=size) as rows:
            x = pyro.sample("x", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(x, 1.0), obs=y[rows])

    def guide(y, size):
        loc = pyro.param("loc", lambda: torch.arange(8.0), event_dim=0)
        pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=size) as rows:
            pyro.sample("x", dist.Normal(loc[rows], 1e-3))

    problem = Problem(model, Y, 3)
    with pyro.get_param_store().scope() as state, seeded(0):
        guide(Y, 3)
    fit = GuidePosterior(problem, guide, state, **COMMON)
    values, log_q = fit.sample_with_log_prob(5)
    torch.testing.assert_close(values["x"].round().mean(0), torch.arange(8.0), rtol=0, atol=1e-6)
    expected = td.Normal(0.0, 1.0).log_prob(values["mu"])
    expected = expected + td.Normal(torch.arange(8.0), 1e-3).log_prob(values["x"]).sum(1)
    torch.testing.assert_close(log_q, expected)


def test_parameters_of_the_model_go_with_the_fit():
    def model(y):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, scale), obs=y)

    problem = Problem(model, Y)
    guide, params = trained(problem, AutoNormal, steps=50)
    fit = GuidePosterior(problem, guide, params, **COMMON)
    scale = params["params"]["scale"].detach().exp()
    assert abs(scale - 1) > 0.1
    mu = randn(3)
    prior = td.Normal(0.0, 1.0).log_prob(mu)
    at = {s: prior + td.Normal(mu[:, None], s).log_prob(Y).sum(1) for s in (1.0, float(scale))}
    torch.testing.assert_close(problem.log_joint({"mu": mu}).detach(), at[1.0])
    torch.testing.assert_close(fit.problem.log_joint({"mu": mu}).detach(), at[float(scale)])


def test_enumerated_training_by_pyro_gives_the_same_bound():
    problem = Problem(mixture, Y)
    guide = AutoNormal(poutine.block(mixture, hide=["z"]))
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    enumerated = pyro.infer.config_enumerate(mixture, "parallel")
    with pyro.get_param_store().scope() as state, seeded(0):
        losses = -torch.tensor([elbo.loss(enumerated, guide, Y) for _ in range(500)])
    fit = GuidePosterior(problem, guide, state, **COMMON)
    ours = fit.elbo(4000, seed=1)
    error = math.hypot(ours.standard_error, float(losses.std()) / math.sqrt(500))
    assert abs(ours.value - float(losses.mean())) < 4.5 * error


def test_point_guides_have_no_finite_spread(problem):
    fit = GuidePosterior(problem, *trained(problem, AutoDelta), **COMMON)
    values = fit.sample(3)
    assert torch.equal(values["w"][0], values["w"][1])
    with pytest.raises(NotSupportedError, match="AutoDelta is a point estimate of w"):
        fit.log_prob(values)
