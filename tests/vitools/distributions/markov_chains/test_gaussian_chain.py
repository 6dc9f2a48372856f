"""Gaussian trajectories against one dense multivariate normal."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from vitools.distributions import GaussianMarkovChain
from vitools.errors import OptionError

pytestmark = pytest.mark.uses_global_generator

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def dense(chain: GaussianMarkovChain) -> torch.distributions.MultivariateNormal:
    """x = M noise + m, column by column and without any scan."""
    steps, size = chain.event_shape
    given = chain._given
    one = torch.eye(size, dtype=torch.float64)
    columns = torch.zeros(*chain.batch_shape, steps, size, steps * size, dtype=torch.float64)
    means = torch.zeros(*chain.batch_shape, steps, size, dtype=torch.float64)

    def root(kind, t):
        tril = getattr(chain, f"{kind}_tril", None)
        if tril is None:
            tril = torch.diag_embed(getattr(chain, kind))
        return tril if t is None else tril[..., t, :, :]

    columns[..., 0, :, :size] = root("initial_scale", None)
    means[..., 0, :] = chain.initial_loc
    for t in range(1, steps):
        matrix = chain.transition_matrix[..., t - 1, :, :] if "transition_matrix" in given else one
        columns[..., t, :, :] = matrix @ columns[..., t - 1, :, :]
        columns[..., t, :, t * size : (t + 1) * size] = root("transition_scale", t - 1)
        means[..., t, :] = (matrix @ means[..., t - 1, :].unsqueeze(-1)).squeeze(-1)
        if "transition_offset" in given:
            means[..., t, :] += chain.transition_offset[..., t - 1, :]
    wide = columns.flatten(-3, -2)
    covariance = wide @ wide.mT
    return torch.distributions.MultivariateNormal(
        means.flatten(-2), covariance_matrix=(covariance + covariance.mT) / 2
    )


@st.composite
def chains(draw):
    torch.manual_seed(draw(st.integers(0, 2**20)))
    steps, size = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    batch = draw(st.sampled_from([(), (2,), (3, 2)]))
    varies = draw(st.booleans())
    time = (steps - 1,) if varies else ((1,) if batch else ())

    def number(*shape):
        return 0.4 * torch.randn(*shape, dtype=torch.float64)

    def tril(*shape):
        return number(*shape).tril(-1) + torch.diag_embed(number(*shape[:-1]).exp())

    parameters = {}
    if draw(st.booleans()):
        parameters["initial_scale"] = number(*batch, size).exp()
        parameters["transition_scale"] = number(*batch, *time, size).exp()
    else:
        parameters["initial_scale_tril"] = tril(size, size)
        parameters["transition_scale_tril"] = tril(*batch, *time, size, size)
    if draw(st.booleans()):
        parameters["transition_matrix"] = number(*batch, *time, size, size)
    if draw(st.booleans()):
        parameters["transition_offset"] = number(*batch, *time, size)
    return GaussianMarkovChain(
        number(*batch, size), num_steps=steps, validate_args=True, **parameters
    )


@settings(max_examples=40, deadline=None)
@given(chains())
def test_densities_moments_and_the_map_of_noise_are_those_of_a_dense_normal(chain):
    truth = dense(chain)
    x = torch.randn(4, *chain.batch_shape, *chain.event_shape, dtype=torch.float64)
    log_prob = chain.log_prob(x)
    assert log_prob.shape == (4, *chain.batch_shape)
    torch.testing.assert_close(log_prob, truth.log_prob(x.flatten(-2)), **EXACT)
    torch.testing.assert_close(chain.mean.flatten(-2), truth.mean, **EXACT)
    torch.testing.assert_close(chain.variance.flatten(-2), truth.variance, **EXACT)
    bigger = chain.expand((5, *chain.batch_shape))
    assert bigger.sample().shape == (5, *chain.batch_shape, *chain.event_shape)
    torch.testing.assert_close(bigger.log_prob(x[:1]), log_prob[:1].expand(5, *chain.batch_shape))


def test_draws_have_the_covariance_of_neighbours():
    chain = GaussianMarkovChain(
        torch.tensor([1.0, -1.0]).double(),
        torch.tensor([0.5, 2.0]).double(),
        torch.tensor([0.3, 0.4]).double(),
        torch.tensor([[0.9, 0.2], [-0.1, 0.7]]).double(),
        torch.tensor([0.1, 0.0]).double(),
        num_steps=7,
    )
    torch.manual_seed(0)
    count = 40_000
    flat = chain.sample((count,)).flatten(-2)
    truth = dense(chain)
    error = flat.mean(0) - truth.mean
    assert bool((error.abs() < 5 * truth.stddev / count**0.5).all())
    scale = truth.stddev.outer(truth.stddev)
    assert bool(
        (((flat.T.cov() - truth.covariance_matrix) / scale).abs() < 5 * 1.5 / count**0.5).all()
    )


def test_gradients_pass_through_draws():
    scale = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    chain = GaussianMarkovChain(torch.zeros(1).double(), torch.ones(1).double(), scale, num_steps=9)
    torch.manual_seed(1)
    x = chain.rsample()
    (slope,) = torch.autograd.grad(x[-1, 0], scale)
    torch.testing.assert_close(slope, (x[-1] - x[0]) / scale.detach())


def test_a_million_steps_take_few_operations():
    walk = GaussianMarkovChain(torch.zeros(1), torch.ones(1), torch.ones(1), num_steps=1_000_000)
    assert bool(walk.log_prob(walk.sample()).isfinite())


def walk(y):
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones((), dtype=torch.float64)))
    start = torch.zeros(1, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    x = pyro.sample("x", GaussianMarkovChain(start, one, scale.unsqueeze(-1), num_steps=len(y)))
    with pyro.plate("t", len(y)):
        pyro.sample("y", dist.Normal(x.squeeze(-1), 0.5), obs=y)


Y = torch.tensor([0.1, 0.4, 0.2, 0.9, 1.1], dtype=torch.float64)


def test_it_works_in_svi_and_nuts_of_pyro():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = AutoNormal(walk)
    svi = SVI(walk, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(Y) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    mcmc = MCMC(NUTS(walk), num_samples=20, warmup_steps=20, disable_progbar=True)
    mcmc.run(Y)
    assert mcmc.get_samples()["x"].shape == (20, 5, 1)
    pyro.clear_param_store()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"transition_scale": 1.0, "num_steps": 3},
            "initial_scale and initial_scale_tril, got neither",
        ),
        ({"initial_scale": 1.0, "transition_scale": 1.0}, "how many steps"),
        ({"initial_scale": 1.0, "transition_scale": 1.0, "num_steps": 0}, "num_steps is 0"),
        (
            {"initial_scale": 1.0, "transition_scale": torch.ones(4, 2), "num_steps": 3},
            "transition_scale says 5, num_steps says 3",
        ),
    ],
)
def test_what_is_missing_or_contradicts_is_told(arguments, words):
    with pytest.raises(OptionError, match=words):
        GaussianMarkovChain(torch.zeros(2), **arguments)
