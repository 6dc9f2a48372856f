"""Factor graphs: sum-products, gradients and recorded graphs against explicit sums."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td
from torch.fx.experimental.proxy_tensor import make_fx

from vitools.problem import Problem
from vitools.problem.density.factors import TraceableLogRing


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def packed(tensor, letters):
    tensor = tensor[...]
    tensor._pyro_dims = letters
    return tensor


@pytest.mark.parametrize(
    ("inputs", "summed"),
    [
        (["ab", "bc", "cd"], "bc"),
        (["ab", "ab", "b"], "ab"),
        (["a", "b"], "b"),
        (["ba", "cb", "ac"], "abc"),
        (["abc", "c", "cd"], "acd"),
        (["ab"], ""),
    ],
)
def test_sumproduct_is_einsum_in_log_space(inputs, summed):
    size = dict(zip("abcd", (2, 3, 4, 5), strict=True))
    terms = [randn(*[size[d] for d in dims], seed=i) for i, dims in enumerate(inputs)]
    ring = TraceableLogRing({}, {})
    result = ring.sumproduct(
        [packed(t, dims) for t, dims in zip(terms, inputs, strict=True)], set(summed)
    )
    equation = ",".join(inputs) + "->" + result._pyro_dims
    torch.testing.assert_close(result, torch.einsum(equation, *[t.exp() for t in terms]).log())
    assert set(result._pyro_dims) == set("".join(inputs)) - set(summed)


def test_sumproduct_of_a_long_chain_never_builds_the_joint_table():
    letters = [chr(1000 + i) for i in range(60)]
    terms = [
        packed(randn(3, 3, seed=i), a + b) for i, (a, b) in enumerate(itertools.pairwise(letters))
    ]
    ring = TraceableLogRing({}, {})
    result = ring.sumproduct(terms, set(letters))  # a joint table would have 3**60 entries
    message = torch.zeros(3)
    for term in terms:
        message = (message[:, None] + term).logsumexp(0)
    torch.testing.assert_close(result, message.logsumexp(0))


def mixture(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def explicit(mu, y):
    rows = torch.tensor([0.2, 0.3, 0.5]).log() + td.Normal(mu, 1.0).log_prob(y[:, None])
    return td.Normal(0.0, 2.0).log_prob(mu).sum() + rows.logsumexp(-1).sum()


def test_factors_are_named_and_placed():
    problem = Problem(mixture, randn(5))
    graph = problem.factors({"mu": randn(3)})
    placed = {f.name: (len(f.plates), f.enumerated is not None) for f in graph.factors}
    assert placed == {"mu": (0, False), "z": (1, True), "y": (1, False)}
    components = [[f.name for f in members] for members in graph.components()]
    assert components == [["mu"], ["z", "y"]]
    assert graph.plate_of(graph.plate_letters["rows"]) == "rows"


def test_gradient_and_recorded_graph():
    y = randn(5, seed=1)
    problem = Problem(mixture, y)

    def log_density(mu):
        return problem.factors({"mu": mu}).log_density()

    mu, other = randn(3, seed=2), randn(3, seed=3)
    expected = torch.func.grad(lambda m: explicit(m, y))(mu)
    torch.testing.assert_close(torch.func.grad(log_density)(mu), expected)
    hessian = torch.func.jacrev(torch.func.grad(log_density))(mu)
    expected = torch.func.jacrev(torch.func.grad(lambda m: explicit(m, y)))(mu)
    torch.testing.assert_close(hessian, expected)
    recorded = make_fx(log_density)(mu)
    torch.testing.assert_close(recorded(other), explicit(other, y))
    gradient = make_fx(torch.func.grad(log_density))(mu)
    torch.testing.assert_close(gradient(other), torch.func.grad(lambda m: explicit(m, y))(other))


def test_impossible_states_give_finite_gradients():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        z = 0
        for t in pyro.markov(range(3)):
            z = pyro.sample(f"z_{t}", dist.Categorical(torch.tensor([[0.5, 0.5], [0.0, 1.0]])[z]))
            pyro.sample(f"y_{t}", dist.Normal(mu * z, 1.0), obs=y[t])

    y = randn(3)
    problem = Problem(model, y)
    mu = torch.tensor(0.4, requires_grad=True)
    problem.log_joint({"mu": mu}).backward()
    with torch.no_grad():
        h = 1e-6
        ends = problem.log_joint({"mu": torch.tensor([0.4 - h, 0.4 + h])})
    assert float(mu.grad) == pytest.approx(float((ends[1] - ends[0]) / (2 * h)), rel=1e-5)


def test_probes_weight_the_values_of_a_site():
    y = randn(4, seed=1)
    problem = Problem(mixture, y)
    mu = randn(3, seed=2)
    graph = problem.factors({"mu": mu})
    site = next(f for f in graph.factors if f.name == "z")
    weights = randn(3, 4, seed=5)
    letters = f"{site.enumerated}{graph.plate_letters['rows']}"
    found = graph.log_density({"z": packed(weights, letters)})
    rows = torch.tensor([0.2, 0.3, 0.5]).log() + td.Normal(mu, 1.0).log_prob(y[:, None])
    expected = td.Normal(0.0, 2.0).log_prob(mu).sum() + (rows + weights.mT).logsumexp(-1).sum()
    torch.testing.assert_close(found, expected)
