"""Normalising flows: the map, a posterior no Gaussian fits, and densities known up to Z."""

import math
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import make_fx

from vitools import Problem, load, save, svi
from vitools.errors import ModelError, NotSupportedError, OptionError
from vitools.guides import AutoFlow
from vitools.guides.flow.zuko_flows import FLOWS, FlowMap

every_flow = pytest.mark.parametrize("flow", FLOWS)


@pytest.fixture(autouse=True)
def own_store_and_generator(clean_process):
    """Each test works on its own parameter store and leaves torch's generator alone."""
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def set_up(guide: AutoFlow, *args: object) -> AutoFlow:
    with poutine.block():
        guide(*args)
    return guide


def disturb(module: torch.nn.Module, size: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))


# -- the map ------------------------------------------------------------------------------------


@every_flow
@pytest.mark.parametrize(("size", "context_size"), [(1, 0), (1, 2), (2, 0), (5, 3)])
def test_log_determinant_is_that_of_autodiff_and_the_inverse_undoes(
    flow: str, size: int, context_size: int
) -> None:
    bijection = FlowMap(flow, size, context=context_size).double()
    z = torch.randn(6, size)
    context = torch.randn(context_size) if context_size else None
    y, log_det = bijection(z, context)
    torch.testing.assert_close(y, z)  # the start is the identity
    torch.testing.assert_close(log_det, torch.zeros(6))
    disturb(bijection)
    y, log_det = bijection(z, context)
    assert (y - z).abs().max() > 0.01
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: bijection(v, context)[0]))(z)
    torch.testing.assert_close(log_det, jacobian.logdet())
    back, same = bijection(y, context, inverse=True)
    torch.testing.assert_close(back, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(same, log_det, rtol=1e-5, atol=1e-5)


def test_importing_zuko_leaves_torch_as_it_was() -> None:
    FlowMap("spline", 2)
    assert Distribution._validate_args
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)
    assert isinstance(Distribution.__dict__["arg_constraints"], property)


# -- the guide ----------------------------------------------------------------------------------


def banana() -> None:
    """b given a lies on a parabola; the evidence is an integral over a alone."""
    zero = torch.zeros(())
    a = pyro.sample("a", dist.Normal(zero, 1.0))
    b = pyro.sample("b", dist.Normal(zero, 1.0))
    pyro.sample("x", dist.Normal(b - a**2, 0.3), obs=zero + 0.5)


def log_evidence_of_banana() -> float:
    a = torch.linspace(-8, 8, 2001)
    joint = dist.Normal(0.0, 1.0).log_prob(a)
    joint = joint + dist.Normal(-(a**2), math.sqrt(1.09)).log_prob(torch.tensor(0.5))
    return (joint.logsumexp(0) + (a[1] - a[0]).log()).item()


def weights_of_fit(guide: AutoFlow, model, draws: int) -> Tensor:
    """log p(x, θ) - log q(θ) at draws of the guide."""
    elbo = Trace_ELBO(num_particles=1)
    with torch.no_grad():
        return -torch.tensor([elbo.loss(model, guide) for _ in range(draws)])


@pytest.mark.slow
def test_fits_a_banana_that_no_gaussian_does() -> None:
    """A Gaussian's best bound is .25 below log p(x); the flow's importance weights recover it."""
    guide = AutoFlow(banana, "realnvp", init_scale=0.5)
    elbo = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    for rate in (0.05, 0.01):
        svi = SVI(banana, guide, pyro.optim.Adam({"lr": rate}), elbo)
        for _ in range(250):
            svi.step()
    log_weights = weights_of_fit(guide, banana, 1000)
    weights = torch.exp(log_weights - log_evidence_of_banana())
    assert log_weights.mean() > log_evidence_of_banana() - 0.1
    assert abs(weights.mean() - 1) < 4 * weights.std() / math.sqrt(len(weights))


@every_flow
def test_draws_are_scored_as_given_values_are(flow: str) -> None:
    guide = set_up(AutoFlow(banana, flow))
    disturb(guide.weights, 2.0)
    q = guide.get_posterior()
    for sample_shape, batch_shape in (((), ()), ((3,), ()), ((2,), (3, 1))):
        expanded = q.expand(batch_shape)
        value = expanded.rsample(sample_shape)
        assert value.shape == sample_shape + batch_shape + (2,)
        known = expanded.log_prob(value)
        assert known.shape == sample_shape + batch_shape
        torch.testing.assert_close(expanded.log_prob(value.clone()), known, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "flow", [pytest.param(f, marks=[pytest.mark.slow] * (f == "spline")) for f in FLOWS]
)
def test_density_integrates_to_one(flow: str) -> None:
    guide = set_up(AutoFlow(banana, flow, init_scale=1.0))
    disturb(guide.weights)
    grid = torch.linspace(-12, 12, 401)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    with torch.no_grad():
        total = guide.get_posterior().log_prob(points).exp().sum() * (grid[1] - grid[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=1e-3)


@every_flow
def test_follows_vmap_and_graph_recording(flow: str) -> None:
    guide = set_up(AutoFlow(banana, flow))
    disturb(guide.weights)

    def once(_: Tensor) -> tuple[Tensor, Tensor]:
        with poutine.block():
            trace = poutine.trace(guide).get_trace()
        return trace.nodes["a"]["value"], trace.log_prob_sum()

    with pyro.validation_enabled(False):
        values, densities = torch.vmap(once, randomness="different")(torch.zeros(5))
        graph = make_fx(once)(torch.zeros(()))
    assert len(set(values.tolist())) == 5
    assert densities.isfinite().all()
    first, second = graph(torch.zeros(())), graph(torch.zeros(()))
    assert first[0] != second[0]
    torch.manual_seed(1)
    expected = once(torch.zeros(()))
    torch.manual_seed(1)
    torch.testing.assert_close(graph(torch.zeros(())), expected)


def test_starts_at_the_moments_of_another_fit_also_after_training() -> None:
    covariance = torch.tensor([[0.5, 0.3], [0.3, 0.4]])
    target = dist.MultivariateNormal(torch.tensor([1.0, -2.0]), covariance)

    def sampled(n: int, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        draws = target.sample((n,))
        return {"a": draws[:, 0], "b": draws[:, 1]}

    guide = set_up(AutoFlow(banana))
    disturb(guide.weights)
    guide.initialise_from(SimpleNamespace(sample=sampled), num_samples=20_000)
    with torch.no_grad():
        draws = guide.get_posterior().sample((20_000,))
    error = (2 * covariance.diagonal() / 20_000).sqrt()  # of the difference of two means
    assert ((draws.mean(0) - target.mean).abs() < 4 * error).all()
    torch.testing.assert_close(draws.mT.cov(), covariance, rtol=0.05, atol=0.01)


def test_a_context_serves_several_data_sets() -> None:
    """One guide, many data sets: θ ~ N(0, 1), x | θ ~ N(θ, 1) has the posterior N(x/2, 1/2)."""

    def model(x: Tensor) -> None:
        theta = pyro.sample("theta", dist.Normal(0 * x, 1.0))
        pyro.sample("x", dist.Normal(theta, 1.0), obs=x)

    guide = AutoFlow(model, "realnvp", context=lambda x: x.reshape(1), width=16, layers=1)
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=0)
    for rate in (0.05, 0.01):
        svi = SVI(model, guide, pyro.optim.Adam({"lr": rate}), elbo)
        for _ in range(200):
            svi.step(1.5 * torch.randn(()))
    for x in (-1.5, 0.0, 1.5):
        with torch.no_grad():
            draws = guide.get_posterior(torch.tensor(x)).sample((4000,))
        assert draws.mean().item() == pytest.approx(x / 2, abs=0.15)
        assert draws.std().item() == pytest.approx(math.sqrt(0.5), rel=0.15)
    with pytest.raises(OptionError, match="context: expected a vector"):
        set_up(AutoFlow(model, context=lambda x: x), torch.tensor(0.0))


def test_serves_the_engine_and_is_read_back_from_a_file(tmp_path) -> None:
    problem = Problem(banana)
    guide = AutoFlow(banana, "realnvp", layers=2, width=8)
    fit = svi(problem, guide, max_steps=30)  # warnings are errors: it was recorded as a graph
    save(fit, tmp_path / "fit")
    again = load(tmp_path / "fit", problem)
    draws, log_q = fit.sample_with_log_prob(50, seed=1)
    assert len(set(draws["a"].tolist())) == 50
    torch.testing.assert_close(fit.log_prob(draws), log_q)
    torch.testing.assert_close(again.log_prob(draws), log_q)


def test_refusals() -> None:
    def minibatch(x: Tensor) -> None:
        with pyro.plate("rows", len(x), subsample_size=2) as rows:
            z = pyro.sample("z", dist.Normal(0 * x[rows], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    with pytest.raises(OptionError, match="flow: expected one of spline"):
        set_up(AutoFlow(banana, "magic"))
    with pytest.raises(OptionError, match="layers and width"):
        set_up(AutoFlow(banana, layers=0))
    with pytest.raises(NotSupportedError, match="no closed form"):
        set_up(AutoFlow(banana)).marginal("a")
    with pytest.raises(ModelError, match="plate 'rows' is subsampled"):
        set_up(AutoFlow(minibatch), torch.zeros(5))
