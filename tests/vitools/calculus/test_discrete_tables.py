"""Whatever is computed from discrete latents alone is a table: bounds against sums over all values."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex
from torch import tensor

from vitools import Problem, cavi, exact, explain
from vitools.errors import NotConjugateError

TWO, THREE = tensor([0.2, 0.9]).double(), tensor([0.2, 0.5, 0.8]).double()
GRID = tensor([[0.1, 0.2], [0.6, 0.9]]).double()
SWAP = tensor([[1, 0], [0, 1]])

OF_TWO = {
    "table[1 - a]": lambda a, b: TWO[1 - a],
    "table[a + b]": lambda a, b: THREE[a + b],
    "table[a, b]": lambda a, b: GRID[a, b],
    "Vindex": lambda a, b: Vindex(GRID)[..., a, b],
    "where": lambda a, b: TWO[torch.where(a == b, 0, 1)],
    "where of numbers": lambda a, b: torch.where(a == b, 0.2, 0.7),
    "max": lambda a, b: TWO[torch.max(a, b)],
    "min": lambda a, b: TWO[torch.min(a, b)],
    "maximum": lambda a, b: TWO[torch.maximum(a, b)],
    "and": lambda a, b: TWO[a & b],
    "or": lambda a, b: TWO[a | b],
    "xor": lambda a, b: TWO[a ^ b],
    "and of comparisons": lambda a, b: TWO[((a == 1) & (b == 0)).long()],
    "or of comparisons": lambda a, b: TWO[((a == 1) | (b == 0)).long()],
    "not": lambda a, b: TWO[(~(a == 1)).long()],
    "greater": lambda a, b: TWO[(a >= b).long()],
    "clamp": lambda a, b: TWO[torch.clamp(a + b, max=1)],
    "clamp of a table": lambda a, b: THREE[a].clamp(max=0.4) * TWO[b],
    "remainder": lambda a, b: TWO[(a + b) % 2],
    "power": lambda a, b: TWO[a] ** b,
    "integers read": lambda a, b: TWO[SWAP[a, b]],
    "mean of a row": lambda a, b: GRID[a].mean(-1),
    "noisy or": lambda a, b: 1 - (1 - TWO[a]) * (1 - TWO[b]),
    "|a - b|": lambda a, b: TWO[abs(a - b)],
    "take": lambda a, b: TWO.take(a),
}

PLACE, WIDTH = tensor([1.0, 2.0, 3.0]).double(), tensor([2.0, 1.0, 0.5]).double()
ROWS = tensor([[1.0, 2.0], [3.0, 1.0], [0.5, 0.5]]).double()
PROBS = tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]]).double()
COVARIANCES = torch.stack(
    [torch.eye(2), 2 * torch.eye(2), tensor([[1.0, 0.5], [0.5, 1.0]])]
).double()

OF_ONE = {
    "Gamma": (lambda c: dist.Gamma(PLACE[c], WIDTH[c]), 1.3),
    "Beta": (lambda c: dist.Beta(PLACE[c], WIDTH[c]), 0.3),
    "InverseGamma": (lambda c: dist.InverseGamma(PLACE[c], WIDTH[c]), 1.3),
    "Dirichlet": (lambda c: dist.Dirichlet(ROWS[c]), [0.3, 0.7]),
    "Dirichlet of a sum": (lambda c: dist.Dirichlet(ROWS[c] * 2 + 1), [0.3, 0.7]),
    "Categorical of logits": (lambda c: dist.Categorical(logits=PROBS[c].log() + 1), 2),
    "OneHotCategorical": (lambda c: dist.OneHotCategorical(logits=PROBS[c]), [0.0, 1.0, 0.0]),
    "Multinomial": (lambda c: dist.Multinomial(5, logits=PROBS[c]), [1.0, 3.0, 1.0]),
    "Bernoulli": (lambda c: dist.Bernoulli(logits=PLACE[c]), 1.0),
    "NegativeBinomial": (lambda c: dist.NegativeBinomial(PLACE[c], logits=WIDTH[c]), 3.0),
    "StudentT": (lambda c: dist.StudentT(PLACE[c], WIDTH[c], PLACE[c]), 3.0),
    "Weibull": (lambda c: dist.Weibull(PLACE[c], WIDTH[c]), 3.0),
    "Gumbel": (lambda c: dist.Gumbel(PLACE[c], WIDTH[c]), 3.0),
    "Logistic": (lambda c: dist.Logistic(PLACE[c], WIDTH[c]), 3.0),
    "Cauchy": (lambda c: dist.Cauchy(PLACE[c], WIDTH[c]), 3.0),
    "HalfNormal": (lambda c: dist.HalfNormal(WIDTH[c]), 3.0),
    "Uniform, outside for one value": (lambda c: dist.Uniform(-PLACE[c], PLACE[c]), 1.5),
    "Pareto": (lambda c: dist.Pareto(WIDTH[c], PLACE[c]), 2.5),
    "VonMises": (lambda c: dist.VonMises(WIDTH[c], PLACE[c]), 1.5),
    "BetaBinomial": (lambda c: dist.BetaBinomial(PLACE[c], WIDTH[c], 5), 1.0),
    "GammaPoisson": (lambda c: dist.GammaPoisson(PLACE[c], WIDTH[c]), 1.0),
    "MultivariateNormal": (
        lambda c: dist.MultivariateNormal(
            ROWS[c], scale_tril=torch.linalg.cholesky(COVARIANCES[c])
        ),
        [1.0, 0.0],
    ),
    "Normal of several": (
        lambda c: dist.Normal(ROWS[c], WIDTH[c].unsqueeze(-1)).to_event(1),
        [1.0, 0.0],
    ),
    "a mask": (lambda c: dist.Normal(PLACE[c], 1.0).mask(c < 2), 1.0),
}


@pytest.mark.parametrize("name", OF_TWO)
def test_a_function_of_two_latents_gives_the_bound_that_its_sum_is(name):
    def model():
        a = pyro.sample("a", dist.Categorical(tensor([0.4, 0.6]).double()))
        b = pyro.sample("b", dist.Categorical(tensor([0.3, 0.7]).double()))
        pyro.sample("y", dist.Bernoulli(OF_TWO[name](a, b)), obs=tensor(1.0).double())

    problem = Problem(model)
    fit = cavi(problem)
    assert str(explain(problem))
    bound = 0.0
    for a, b in itertools.product(range(2), range(2)):
        weight = fit.marginal("a").probs[a] * fit.marginal("b").probs[b]
        given = poutine.condition(model, {"a": tensor(a), "b": tensor(b)})
        log_joint = poutine.trace(given).get_trace().log_prob_sum()
        bound += float(weight * log_joint - torch.xlogy(weight, weight))
    assert fit.elbo().value == pytest.approx(bound, abs=1e-9)


@pytest.mark.parametrize("name", OF_ONE)
def test_parameters_from_known_tables_give_the_evidence(name):
    make, data = OF_ONE[name]

    def model():
        c = pyro.sample("c", dist.Categorical(tensor([0.2, 0.3, 0.5]).double()))
        pyro.sample("y", make(c), obs=tensor(data) if name[:4] == "Cate" else tensor(data).double())

    problem = Problem(model)
    assert cavi(problem).elbo().value == pytest.approx(exact(problem).log_evidence.value, abs=1e-9)


def test_parameters_from_known_tables_in_a_plate():
    """log p(x) = Σ_n log Σ_k p_k t(x_n | ν_k, μ_k + s_n, σ_k), masked where x is missing."""
    x, shift = (
        tensor([0.3, float("nan"), 2.0, -1.0]).double(),
        tensor([0.0, 1.0, 0.0, 2.0]).double(),
    )
    p = tensor([0.2, 0.3, 0.5]).double()

    def model(x):
        with pyro.plate("rows", 4), poutine.mask(mask=~x.isnan()):
            c = pyro.sample("c", dist.Categorical(p))
            pyro.sample("x", dist.StudentT(PLACE[c], WIDTH[c] + shift, PLACE[c]), obs=x)

    known = x.nan_to_num().unsqueeze(-1)
    densities = dist.StudentT(PLACE, WIDTH + shift.unsqueeze(-1), PLACE).log_prob(known)
    expected = float(((densities + p.log()).logsumexp(-1) * ~x.isnan()).sum())
    assert cavi(Problem(model, x)).elbo().value == pytest.approx(expected, abs=1e-9)


def test_a_simplex_of_one_corner_is_no_latent():
    def model(y):
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(1).double()))
        mu = pyro.sample("mu", dist.Normal(tensor(0.0).double(), 1.0))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("y", dist.Normal(mu + z, 1.0), obs=y)

    problem = Problem(model, tensor([0.1, 0.2, 0.3]).double())
    assert "weights" not in problem.latents
    assert cavi(problem).elbo().value == pytest.approx(exact(problem).log_evidence.value, abs=1e-7)


def test_a_function_of_a_whole_plate_is_no_table_of_its_elements():
    """√(1 + Σ_n c_n) is no sum over n: refused, in words."""

    def model():
        with pyro.plate("rows", 3):
            c = pyro.sample("c", dist.Bernoulli(tensor(0.3).double()))
        pyro.sample("y", dist.Normal(0.0, (1 + c.sum(-1)).sqrt()), obs=tensor(1.5).double())

    from vitools.calculus.model import ConjugateModel

    with pytest.raises(NotConjugateError, match=r"'y'.*'c'"):
        ConjugateModel(model, (), {})
