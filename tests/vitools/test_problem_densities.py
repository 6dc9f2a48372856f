"""log_joint against formulas written out with torch.distributions, and against Pyro's own traces."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.util import logsumexp
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.infer.reparam import LocScaleReparam
from torch import distributions as td

from vitools.errors import NotSupportedError, VitoolsWarning
from vitools.problem import Problem


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed))


def rand(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed))


def pyro_log_joint(problem, values):
    """Pyro's own log density of one draw, discrete latents enumerated by Pyro's own evaluator."""
    enumerated = pyro.infer.config_enumerate(problem.model, "parallel")
    depth = problem.max_plate_nesting
    conditioned = poutine.condition(enumerated, data=values)
    if problem.discrete:
        conditioned = poutine.enum(conditioned, first_available_dim=-1 - depth)
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(problem.params):
        run = poutine.trace(conditioned).get_trace(*problem.args, **problem.kwargs)
        if not problem.discrete:
            return run.log_prob_sum()
        return TraceEinsumEvaluator(run, True, depth).log_prob(run)


def assert_close(found, expected, tol=1e-10):
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=tol, atol=tol)


# ---- continuous ---------------------------------------------------------------------------------


def eight_schools(sigma, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)
    return theta


Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]).double()
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]).double()


def test_hierarchy_is_its_formula():
    problem = Problem(eight_schools, SIGMA, y=Y)
    values = {"mu": randn(5, 3), "tau": rand(5, 3) + 0.1, "theta": randn(5, 3, 8, seed=1)}
    mu, tau, theta = values["mu"], values["tau"], values["theta"]
    expected = (
        td.Normal(0.0, 5.0).log_prob(mu)
        + td.HalfCauchy(5.0).log_prob(tau)
        + td.Normal(mu[..., None], tau[..., None]).log_prob(theta).sum(-1)
        + td.Normal(theta, SIGMA).log_prob(Y).sum(-1)
    )
    assert_close(problem.log_joint(values), expected)


def test_sample_dims_broadcast_and_may_be_absent():
    problem = Problem(eight_schools, SIGMA, Y)
    one = {"mu": randn(), "tau": rand() + 0.1, "theta": randn(8)}
    assert problem.log_joint(one).shape == ()
    mixed = {"mu": randn(4, 1), "tau": rand(3) + 0.1, "theta": randn(8)}
    result = problem.log_joint(mixed)
    assert result.shape == (4, 3)
    again = problem.log_joint({"mu": mixed["mu"][2, 0], "tau": mixed["tau"][1], "theta": randn(8)})
    assert_close(result[2, 1], again)


def test_gradient_flows_through_log_joint():
    problem = Problem(eight_schools, SIGMA, Y)
    mu = torch.tensor(0.7, requires_grad=True)
    theta = randn(8)
    problem.log_joint({"mu": mu, "tau": torch.tensor(2.0), "theta": theta}).backward()
    assert_close(mu.grad, -0.7 / 25 + ((theta - 0.7) / 4).sum().item())


def test_values_beyond_their_bounds_have_density_zero():
    def model():
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        s = pyro.sample("s", dist.Exponential(1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Binomial(3, p), obs=torch.tensor(1.0) + 0 * s.sum().long())

    values = {
        "p": torch.tensor([0.5, 1.5, -0.1, 0.5]),
        "s": torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, -2.0]]),
    }
    result = Problem(model).log_joint(values)
    assert math.isfinite(result[0])
    assert result[1:].tolist() == [-math.inf] * 3


def unplated(y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0))
    s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
    pyro.sample("y", dist.Normal(w, s), obs=y)


def test_batch_dims_outside_plates_are_summed_and_named():
    y = randn(3, seed=4)
    problem = Problem(unplated, y)
    values = {"w": randn(6, 3), "s": rand(6) + 0.5}
    w, s = values["w"], values["s"]
    likelihood = td.Normal(w, s[:, None]).log_prob(y)
    expected = td.Normal(0.0, 1.0).log_prob(w).sum(-1) + td.LogNormal(0.0, 1.0).log_prob(s)
    assert_close(problem.log_joint(values), expected + likelihood.sum(-1))
    assert problem.latents["w"].plates == ("w_dim_0",)
    assert (problem.plates["y_dim_0"].size, problem.plates["y_dim_0"].dim) == (3, -1)
    assert problem.unit_plates(values) == {"y": ("y_dim_0",)}
    assert_close(problem.pointwise_log_likelihood(values)["y"], likelihood)


def test_plates_with_gaps_and_plates_of_one():
    x = randn(4, 1, 2)

    def model(x):
        with pyro.plate("a", 4, dim=-3):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("b", 2, dim=-1), pyro.plate("one", 1, dim=-2):
                pyro.sample("x", dist.Normal(m, 2.0), obs=x)

    problem = Problem(model, x)
    m = randn(5, 4, 1, 1, seed=2)
    likelihood = td.Normal(m, 2.0).log_prob(x)
    assert_close(
        problem.log_joint({"m": m}),
        td.Normal(0.0, 1.0).log_prob(m).flatten(1).sum(1) + likelihood.flatten(1).sum(1),
    )
    assert problem.unit_plates({"m": m}) == {"x": ("a", "one", "b")}
    assert_close(problem.pointwise_log_likelihood({"m": m})["x"], likelihood)


def test_sequential_plates():
    y = randn(3, 2)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        for i in pyro.plate("groups", 3):
            a = pyro.sample(f"a_{i}", dist.Normal(mu, 1.0))
            with pyro.plate(f"within_{i}", 2):
                pyro.sample(f"y_{i}", dist.Normal(a, 0.5), obs=y[i])

    problem = Problem(model, y)
    mu, a = randn(5), randn(5, 3, seed=1)
    expected = (
        td.Normal(0.0, 1.0).log_prob(mu)
        + td.Normal(mu[:, None], 1.0).log_prob(a).sum(1)
        + td.Normal(a[..., None], 0.5).log_prob(y).sum((1, 2))
    )
    values = {"mu": mu} | {f"a_{i}": a[:, i] for i in range(3)}
    assert_close(problem.log_joint(values), expected)


@pytest.mark.filterwarnings("ignore:Singular sample")  # torch's Wishart says so of any sample
def test_constrained_supports():
    def model(y):
        theta = pyro.sample("theta", dist.Dirichlet(torch.tensor([2.0, 1.0, 0.5])))
        low = pyro.sample("L", dist.LKJCholesky(3, 2.0))
        u = pyro.sample("u", dist.Uniform(-1.0, 2.0))
        w = pyro.sample("w", dist.Wishart(torch.tensor(9.0), torch.eye(3)))
        with pyro.plate("rows", 2):
            scale = torch.linalg.cholesky(w)
            pyro.sample("y", dist.MultivariateNormal(theta + u, scale_tril=low @ scale), obs=y)

    y = randn(2, 3)
    problem = Problem(model, y)
    prior = problem.prior(7)
    theta, low, u, w = (prior[k] for k in ("theta", "L", "u", "w"))
    scale = low @ torch.linalg.cholesky(w)
    expected = (
        td.Dirichlet(torch.tensor([2.0, 1.0, 0.5])).log_prob(theta)
        + td.LKJCholesky(3, 2.0).log_prob(low)
        - math.log(3.0)
        + td.Wishart(torch.tensor(9.0), torch.eye(3)).log_prob(w)
        + td.MultivariateNormal((theta + u[:, None])[:, None], scale_tril=scale[:, None])
        .log_prob(y)
        .sum(1)
    )
    assert_close(problem.log_joint(prior), expected)


def test_deterministic_factor_and_delta_sites():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        twice = pyro.deterministic("twice", 2 * mu)
        fixed = pyro.sample("fixed", dist.Delta(torch.tensor(3.0)))
        pyro.factor("extra", -mu.abs())
        pyro.sample("y", dist.Normal(twice + fixed, 1.0), obs=y)

    problem = Problem(model, torch.tensor(1.0))
    assert list(problem.latents) == ["mu"]
    assert list(problem.observed) == ["y"]
    assert list(problem.deterministics) == ["twice", "fixed"]
    mu = randn(9)
    expected = td.Normal(0.0, 1.0).log_prob(mu) - mu.abs()
    expected = expected + td.Normal(2 * mu + 3, 1.0).log_prob(torch.tensor(1.0))
    assert_close(problem.log_joint({"mu": mu}), expected)
    replicated = problem.predictive({"mu": mu})
    assert_close(replicated["twice"], 2 * mu)
    assert_close(replicated["fixed"], torch.full((9,), 3.0))


def test_a_factor_alone_is_a_likelihood():
    def banana():
        x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("banana", -((x[..., 1] - x[..., 0] ** 2) ** 2))

    problem = Problem(banana)
    x = randn(4, 2)
    expected = td.Normal(0.0, 1.0).log_prob(x).sum(-1) - (x[:, 1] - x[:, 0] ** 2) ** 2
    assert_close(problem.log_joint({"x": x}), expected)
    assert repr(problem) == "Problem(banana: latents x; observed factors only)"
    assert problem.pointwise_log_likelihood({"x": x}) == {}
    assert problem.predictive({"x": x}) == {}


def test_reparameterised_models():
    reparam = {"theta": LocScaleReparam(0.0)}
    problem = Problem(poutine.reparam(eight_schools, config=reparam), SIGMA, Y)
    assert set(problem.latents) == {"mu", "tau", "theta_decentered"}
    assert list(problem.deterministics) == ["theta"]
    mu, tau, raw = randn(4), rand(4) + 0.1, randn(4, 8, seed=1)
    theta = mu[:, None] + tau[:, None] * raw
    expected = (
        td.Normal(0.0, 5.0).log_prob(mu)
        + td.HalfCauchy(5.0).log_prob(tau)
        + td.Normal(0.0, 1.0).log_prob(raw).sum(-1)
        + td.Normal(theta, SIGMA).log_prob(Y).sum(-1)
    )
    values = {"mu": mu, "tau": tau, "theta_decentered": raw}
    assert_close(problem.log_joint(values), expected)


def test_data_dependent_branch_is_looped_with_one_warning():
    def branching(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        scale = 1.0 if mu > 0 else 2.0
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, scale), obs=y)

    y = randn(5, seed=3)
    problem = Problem(branching, y)
    mu = randn(20)
    with pytest.warns(VitoolsWarning, match="model 'branching' cannot be vectorised") as caught:
        first = problem.log_joint({"mu": mu})
    assert len(caught) == 1
    second = problem.log_joint({"mu": mu})  # said once: warnings are errors here
    problem.pointwise_log_likelihood({"mu": mu})
    assert caught[0].filename == __file__
    scale = torch.where(mu > 0, 1.0, 2.0)[:, None]
    expected = td.Normal(0.0, 1.0).log_prob(mu)
    expected = expected + td.Normal(mu[:, None], scale).log_prob(y).sum(1)
    assert_close(first, expected)
    assert_close(second, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_of_the_problem_is_kept(dtype):
    def model(y):
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), y.new_ones(())))
        z = pyro.sample("z", dist.Bernoulli(torch.sigmoid(mu)))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu + z, y.new_ones(())), obs=y)

    problem = Problem(model, randn(4).to(dtype))
    prior = problem.prior(3)
    assert {k: v.dtype for k, v in prior.items()} == {"mu": dtype, "z": dtype}
    assert problem.log_joint(prior).dtype == dtype
    assert problem.log_joint({"mu": prior["mu"]}).dtype == dtype
    assert problem.discrete_marginals({"mu": prior["mu"]})["z"].dtype == dtype
    assert problem.predictive(prior)["y"].dtype == dtype
    torch.set_default_dtype(torch.float32)  # float64 data are not rounded where float32 is default
    assert problem.discrete_marginals({"mu": prior["mu"]})["z"].dtype == dtype
    torch.set_default_dtype(torch.float64)


def test_models_with_parameters():
    class Regression(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 1)
            self.noise = pyro.nn.PyroParam(torch.tensor(0.5), td.constraints.positive)

        def forward(self, x, y):
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
            mean = self.linear(x)[..., 0] + shift
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(mean, self.noise), obs=y)

    with torch.random.fork_rng(devices=[]):
        model = Regression()
    x, y, shift = randn(6, 2), randn(6, seed=1), randn(3, seed=2)
    problem = Problem(model, x, y)

    def expected(weight, bias, noise):
        mean = x @ weight[0] + bias + shift[:, None]
        likelihood = td.Normal(mean, noise).log_prob(y).sum(1)
        return td.Normal(0.0, 1.0).log_prob(shift) + likelihood

    weight, bias = model.linear.weight.detach().clone(), model.linear.bias.detach().clone()
    assert_close(problem.log_joint({"shift": shift}).detach(), expected(weight, bias, 0.5))
    # the module trained later does not move the problem, nor the problem's parameters the module
    with torch.no_grad():
        model.linear.weight.add_(1.0)
    assert_close(problem.log_joint({"shift": shift}).detach(), expected(weight, bias, 0.5))
    params = {k: torch.nn.Parameter(v + 0.3) for k, v in problem.params["params"].items()}
    other = problem.with_params({**problem.params, "params": params})
    assert_close(
        other.log_joint({"shift": shift}).detach(),
        expected(weight + 0.3, bias + 0.3, 0.5 * math.exp(0.3)),
    )
    assert_close(model.linear.weight.detach(), weight + 1.0)
    assert_close(problem.log_joint({"shift": shift}).detach(), expected(weight, bias, 0.5))


def test_pyro_module_statements_use_the_problems_parameters():
    with torch.random.fork_rng(devices=[]):
        network = torch.nn.Linear(1, 1)

    def model(x, y):
        pyro.module("network", network)
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(network(x)[..., 0], s), obs=y)

    x, y = randn(4, 1), randn(4, seed=1)
    problem = Problem(model, x, y)
    mean = network(x)[:, 0].detach()
    with torch.no_grad():
        network.weight.add_(5.0)
    expected = td.LogNormal(0.0, 1.0).log_prob(torch.tensor(0.7))
    expected = expected + td.Normal(mean, 0.7).log_prob(y).sum()
    assert_close(problem.log_joint({"s": torch.tensor(0.7)}).detach(), expected)


# ---- masks, scales, minibatches -----------------------------------------------------------------


def test_masked_rows_may_be_nan_and_do_not_count():
    y = randn(5)
    missing = torch.tensor([False, True, False, False, True])
    holes = torch.where(missing, torch.nan, y)

    def by_handler(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 5), poutine.mask(mask=~missing):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def by_distribution(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 5):
            pyro.sample("y", dist.Normal(mu, 1.0).mask(~missing), obs=y)

    for model in (by_handler, by_distribution):
        mu = randn(4, seed=1).requires_grad_()
        result = Problem(model, holes).log_joint({"mu": mu})
        seen = y[~missing]
        expected = td.Normal(0.0, 1.0).log_prob(mu)
        expected = expected + td.Normal(mu[:, None], 1.0).log_prob(seen).sum(1)
        assert_close(result, expected)
        (gradient,) = torch.autograd.grad(result.sum(), mu)
        assert_close(gradient, (-mu + (seen - mu[:, None]).sum(1)).detach())


def test_obs_mask_leaves_a_proper_density_for_what_is_missing():
    y, seen = randn(3), torch.tensor([True, False, True])

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)

    problem = Problem(model, torch.where(seen, y, torch.nan))
    assert list(problem.latents) == ["mu", "y_unobserved"]
    mu, unseen = randn(4), randn(4, 3, seed=1)
    # every entry of y_unobserved keeps its density, so that the evidence is that of the seen rows
    expected = (
        td.Normal(0.0, 1.0).log_prob(mu)
        + td.Normal(mu[:, None], 1.0).log_prob(unseen).sum(1)
        + td.Normal(mu[:, None], 1.0).log_prob(y[seen]).sum(1)
    )
    assert_close(problem.log_joint({"mu": mu, "y_unobserved": unseen}), expected)


def test_masked_discrete_padding_sums_to_one():
    lengths = torch.tensor([3, 1])
    y = randn(2, 3)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 2, dim=-1):
            z = 0
            for t in pyro.markov(range(3)):
                with poutine.mask(mask=t < lengths):
                    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]])[z]
                    z = pyro.sample(f"z_{t}", dist.Categorical(p))
                    pyro.sample(f"y_{t}", dist.Normal(mu[z], 1.0), obs=y[:, t])

    mu = torch.tensor([-0.4, 1.3])
    transition = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    expected = td.Normal(0.0, 1.0).log_prob(mu).sum()
    for row in range(2):
        state = transition[0]
        total = 0.0
        for t in range(int(lengths[row])):
            state = state if t == 0 else state @ transition
            state = state * td.Normal(mu, 1.0).log_prob(y[row, t]).exp()
            total = total + state.sum().log()
            state = state / state.sum()
        expected = expected + total
    assert_close(Problem(model, y).log_joint({"mu": mu}), expected)


def test_scale_multiplies_densities():
    y = randn(4)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with poutine.scale(scale=0.25), pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    mu = randn(3, seed=1)
    expected = td.Normal(0.0, 1.0).log_prob(mu)
    expected = expected + 0.25 * td.Normal(mu[:, None], 1.0).log_prob(y).sum(1)
    problem = Problem(model, y)
    assert_close(problem.log_joint({"mu": mu}), expected)
    assert problem.observed["y"].scale == 0.25


WEIGHTS = torch.tensor([1.0, 3.0, 2.0]).double()


@pytest.mark.parametrize("scale", [2.5, WEIGHTS])
def test_scale_weights_rows_after_their_discrete_latents_are_summed(scale):
    y = randn(3)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 3), poutine.scale(scale=scale):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)

    mu = randn(4, 2, seed=1)
    rows = torch.tensor([0.3, 0.7]).log() + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    expected = td.Normal(0.0, 1.0).log_prob(mu).sum(1) + (scale * rows.logsumexp(-1)).sum(-1)
    problem = Problem(model, y)
    assert_close(problem.log_joint({"mu": mu}), expected)
    assert_close(problem.discrete_marginals({"mu": mu})["z"], rows.softmax(-1))


def test_different_scales_around_one_sum_are_refused():
    def model(y):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Bernoulli(p))
            with poutine.scale(scale=0.5):
                pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    problem = Problem(model, randn(3))
    with pytest.raises(NotSupportedError, match="'z', 'y' share discrete latents but have diff"):
        problem.log_joint({"p": torch.tensor(0.3)})


def subsampled_mixture(y, size):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y), subsample_size=size) as rows:
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y[rows])


@pytest.mark.parametrize("size", [1, 3, 7])
def test_subsampled_plates_span_all_data(size):
    y = randn(7)
    problem = Problem(subsampled_mixture, y, size)
    assert (problem.plates["rows"].size, problem.plates["rows"].subsample_size) == (7, size)
    assert problem.observed["y"].shape == (7,)
    mu = randn(4, 2, seed=1)
    rows = torch.tensor([0.3, 0.7]).log() + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    rows = rows.logsumexp(-1)
    prior = td.Normal(0.0, 1.0).log_prob(mu).sum(1)
    assert_close(problem.log_joint({"mu": mu}), prior + rows.sum(1))
    assert_close(problem.pointwise_log_likelihood({"mu": mu})["y"], rows)
    assert problem.predictive({"mu": mu})["y"].shape == (4, 7)


@pytest.mark.parametrize("size", [1, 3])
def test_a_minibatch_is_an_unbiased_estimate(size):
    # every minibatch of one row once: their mean is the full density, because the rows' discrete
    # latents are summed before the minibatch weight 7 / size is applied
    from vitools.enumeration import FactorGraph
    from vitools.isolation import isolated

    y, mu = randn(7), randn(2, seed=1)
    problem = Problem(subsampled_mixture, y, size)
    totals = []
    for start in range(7):
        rows = (torch.arange(size) + start) % 7
        held = {"mu": mu, "rows": rows}

        class Choose(poutine.messenger.Messenger):
            def _pyro_sample(self, msg, held=held):
                if msg["name"] in held:
                    msg["value"], msg["done"] = held[msg["name"]], msg["name"] == "rows"
                    msg["is_observed"] = msg["name"] == "mu" or msg["is_observed"]

        def run(choose=Choose):
            with choose():
                return problem.call()

        with isolated(problem.params):
            totals.append(FactorGraph(run, problem.max_plate_nesting).log_density())
    assert_close(torch.stack(totals).mean(), problem.log_joint({"mu": mu}))


def test_subsample_statement_and_nested_minibatches():
    x = randn(6, 4)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        rows = pyro.plate("rows", 6, subsample_size=2, dim=-2)
        with rows, pyro.plate("columns", 4, subsample_size=3, dim=-1):
            batch = pyro.subsample(x, event_dim=0)
            pyro.sample("x", dist.Normal(mu, 1.0), obs=batch)

    mu = randn(3, seed=1)
    expected = td.Normal(0.0, 1.0).log_prob(mu)
    expected = expected + td.Normal(mu[:, None, None], 1.0).log_prob(x).sum((1, 2))
    assert_close(Problem(model, x).log_joint({"mu": mu}), expected)


# ---- discrete latents ---------------------------------------------------------------------------


def mixture(y, components=3):
    pi = pyro.sample("pi", dist.Dirichlet(torch.ones(components)))
    with pyro.plate("components", components):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(pi))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def test_mixture_summed_out_and_given():
    y = randn(6)
    problem = Problem(mixture, y)
    prior = problem.prior(5)
    pi, mu, z = prior["pi"], prior["mu"], prior["z"]
    globals_ = td.Dirichlet(torch.ones(3)).log_prob(pi) + td.Normal(0.0, 3.0).log_prob(mu).sum(1)
    terms = pi.log()[:, None] + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    continuous = {"pi": pi, "mu": mu}
    assert_close(problem.log_joint(continuous), globals_ + terms.logsumexp(-1).sum(1))
    given = terms.gather(-1, z[..., None])[..., 0].sum(1)
    assert_close(problem.log_joint(prior), globals_ + given)
    assert_close(problem.pointwise_log_likelihood(continuous)["y"], terms.logsumexp(-1))
    looped = torch.stack(
        [pyro_log_joint(problem, {k: v[i] for k, v in continuous.items()}) for i in range(5)]
    )
    assert_close(problem.log_joint(continuous), looped)


def test_global_discrete_latent_couples_a_plate():
    y = randn(4)

    def model(y):
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(torch.tensor([-1.0, 0.0, 2.0])[z], s), obs=y)

    problem = Problem(model, y)
    s = rand(5) + 0.5
    means = torch.tensor([-1.0, 0.0, 2.0])
    likelihood = td.Normal(means[:, None], s[:, None, None]).log_prob(y).sum(-1)
    terms = torch.tensor([0.2, 0.5, 0.3]).log() + likelihood
    prior = td.LogNormal(0.0, 1.0).log_prob(s)
    assert_close(problem.log_joint({"s": s}), prior + terms.logsumexp(-1))
    # the rows share z, so they are one unit
    assert problem.unit_plates({"s": s}) == {"y": ()}
    assert_close(problem.pointwise_log_likelihood({"s": s})["y"], terms.logsumexp(-1))
    # given z, they are four
    z = torch.tensor([2, 1, 0, 0, 1])
    assert problem.unit_plates({"s": s, "z": z}) == {"y": ("rows",)}
    expected = td.Normal(means[z][:, None], s[:, None]).log_prob(y)
    assert_close(problem.pointwise_log_likelihood({"s": s, "z": z})["y"], expected)


def nested(x, counts):
    p = pyro.sample("p", dist.Beta(1.0, 2.0))
    with pyro.plate("rows", 3, dim=-2):
        a = pyro.sample("a", dist.Bernoulli(p))
        with pyro.plate("columns", 2, dim=-1):
            b = pyro.sample("b", dist.Binomial(2, 0.2 + 0.5 * a))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)
        pyro.sample("counts", dist.Poisson(1.0 + a), obs=counts)


def test_nested_plates_and_units_that_share_a_latent():
    x, counts = randn(3, 2), torch.tensor([[0.0], [2.0], [5.0]])
    problem = Problem(nested, x, counts)
    p = rand(4) * 0.8 + 0.1
    rows = []
    for a in (0.0, 1.0):
        b = torch.arange(3.0)
        inner = td.Binomial(2, torch.tensor(0.2 + 0.5 * a)).log_prob(b)
        inner = inner + td.Normal(a + b, 1.0).log_prob(x[..., None])
        row = inner.logsumexp(-1).sum(-1) + td.Poisson(1.0 + a).log_prob(counts[:, 0])
        rows.append(td.Bernoulli(p).log_prob(torch.tensor(a))[:, None] + row)
    units = torch.stack(rows, -1).logsumexp(-1)
    values = {"p": p}
    expected = td.Beta(1.0, 2.0).log_prob(p) + units.sum(1)
    assert_close(problem.log_joint(values), expected)
    assert problem.unit_plates(values) == {"x+counts": ("rows",)}
    assert_close(problem.pointwise_log_likelihood(values)["x+counts"], units)
    # given a, the entries of x are units of their own, and so are the counts
    a = torch.tensor([[[1.0], [0.0], [1.0]]]).expand(4, 3, 1)
    given = problem.pointwise_log_likelihood({"p": p, "a": a})
    assert {k: v.shape[1:] for k, v in given.items()} == {"x": (3, 2), "counts": (3,)}
    looped = torch.stack([pyro_log_joint(problem, {"p": value}) for value in p])
    assert_close(problem.log_joint(values), looped)


def hmm(y):
    num_states = 3
    with pyro.plate("states", num_states):
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(num_states)))
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    z = 0
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(rows[z]))
        pyro.sample(f"y_{t}", dist.Normal(mu[z], 1.0), obs=y[t])


def test_hidden_markov_model_is_the_forward_algorithm():
    y = randn(70)  # longer than the dims a tensor can have: pyro.markov reuses them
    problem = Problem(hmm, y)
    prior = problem.prior(3)
    rows, mu = prior["rows"], prior["mu"]
    emission = td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    message = rows.log()[:, 0] + emission[:, 0]
    for t in range(1, 70):
        message = logsumexp(message[:, :, None] + rows.log(), 1) + emission[:, t]
    expected = message.logsumexp(-1) + td.Normal(0.0, 2.0).log_prob(mu).sum(1)
    expected = expected + td.Dirichlet(torch.ones(3)).log_prob(rows).sum(1)
    assert_close(problem.log_joint({"rows": rows, "mu": mu}), expected)


def test_continuous_latent_given_a_discrete_one():
    y = randn(4)

    def model(y):
        s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
        with pyro.plate("rows", 4):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            x = pyro.sample("x", dist.Normal(3 * z, s))
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    problem = Problem(model, y)
    s, x = rand(3) + 0.5, randn(3, 4, seed=1)
    terms = [
        math.log(w) + td.Normal(3.0 * z, s[:, None]).log_prob(x) for z, w in ((0, 0.7), (1, 0.3))
    ]
    expected = (
        td.LogNormal(0.0, 0.5).log_prob(s)
        + torch.stack(terms).logsumexp(0).sum(1)
        + td.Normal(x, 1.0).log_prob(y).sum(1)
    )
    assert_close(problem.log_joint({"s": s, "x": x}), expected)


def test_one_hot_and_single_valued_latents():
    y = randn(3)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.OneHotCategorical(torch.tensor([0.4, 0.6])))
            pyro.sample("only", dist.Categorical(torch.ones(1)))
            pyro.sample("y", dist.Normal((z * mu).sum(-1), 1.0), obs=y)

    problem = Problem(model, y)
    mu = randn(5, 2, seed=1)
    terms = torch.tensor([0.4, 0.6]).log() + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    expected = td.Normal(0.0, 1.0).log_prob(mu).sum(1) + terms.logsumexp(-1).sum(1)
    assert_close(problem.log_joint({"mu": mu}), expected)
    assert_close(problem.discrete_marginals({"mu": mu})["z"], terms.softmax(-1))
    assert_close(problem.discrete_marginals({"mu": mu})["only"], torch.ones(5, 3, 1))


def test_sequential_enumeration_in_the_model_is_still_summed():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "sequential"})
        pyro.sample("y", dist.Normal(mu + z, 1.0), obs=y)

    mu, y = randn(3), torch.tensor(0.4)
    terms = torch.stack(
        [math.log(w) + td.Normal(mu + z, 1.0).log_prob(y) for z, w in ((0, 0.7), (1, 0.3))]
    )
    expected = td.Normal(0.0, 1.0).log_prob(mu) + terms.logsumexp(0)
    assert_close(Problem(model, y).log_joint({"mu": mu}), expected)


def test_discrete_latents_alone():
    x = torch.tensor(1.0)

    def model(x):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.8])))
        pyro.sample("x", dist.Bernoulli(torch.tensor([0.9, 0.3])[z]), obs=x)

    problem = Problem(model, x)
    assert_close(problem.log_joint({}).exp(), 0.2 * 0.9 + 0.8 * 0.3)
    assert_close(problem.discrete_marginals({})["z"], torch.tensor([0.18, 0.24]) / 0.42)
    assert problem.sample_discrete({}, num_draws=7)["z"].shape == (7,)
    assert problem.predictive({}, num_draws=7)["x"].shape == (7,)


def test_crossed_discrete_plates_cannot_be_summed():
    def model(x):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1)
        with rows:
            a = pyro.sample("a", dist.Bernoulli(p))
        with columns:
            b = pyro.sample("b", dist.Bernoulli(p))
        with rows, columns:
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    problem = Problem(model, randn(3, 2))
    with pytest.raises(
        NotSupportedError, match="its discrete latents cannot be summed out exactly"
    ):
        problem.log_joint({"p": torch.tensor(0.3)})
    given = {"a": torch.ones(3, 1), "b": torch.zeros(2)}
    expected = 5 * math.log(0.3) + 0.0
    expected = 3 * math.log(0.3) + 2 * math.log(0.7)
    expected = expected + td.Normal(1.0, 1.0).log_prob(problem.observed["x"].value).sum()
    assert_close(problem.log_joint({"p": torch.tensor(0.3), **given}), expected)
