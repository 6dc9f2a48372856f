"""The states of a chain in one factor: exact where the rest is known, better than apart elsewhere."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import (
    assert_never_falls,
    assert_updates_are_optimal,
    fitted,
)
from pyro import poutine
from torch import distributions as td

from vitools import Problem, cavi, load, save
from vitools.calculus import ConjugateModel
from vitools.calculus.blocks import plan
from vitools.calculus.blocks.markov_chain import MarkovChainBlock
from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.start.initialise import initialise
from vitools.engines.cavi.outcome import distributions
from vitools.errors import NotSupportedError
from vitools.families.markov_chain import MarkovChain, MarkovChainFamily

JUMP = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [3.0, 3.0, 2.0]], dtype=torch.float64)
LEVEL = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
generator = torch.Generator().manual_seed(3)
X = 1.5 * torch.randn(4, 7, generator=generator, dtype=torch.float64)
STATES = [f"z{t}" for t in range(7)]


def known(x, lengths=None):
    """Rows of observations given a chain of states; jumps and levels are known."""
    lengths = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
    with pyro.plate("rows", len(x)):
        z = 0
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=t < lengths):
                z = pyro.sample(f"z{t}", dist.Categorical(JUMP[z]))
                pyro.sample(f"x{t}", dist.Normal(LEVEL[z], 0.8), obs=x[:, t])


def log_evidence(x):
    """The forward algorithm, row by row, in plain arithmetic."""
    jump = JUMP / JUMP.sum(-1, keepdim=True)
    likelihood = td.Normal(LEVEL, 0.8).log_prob(x.unsqueeze(-1)).exp()
    ahead = jump[0] * likelihood[0]
    for row in likelihood[1:]:
        ahead = (ahead @ jump) * row
    return float(ahead.sum().log())


def test_the_bound_of_known_chains_is_their_evidence():
    fit = cavi(Problem(known, X), joint=[STATES], collapse=False)
    assert fit.bound == pytest.approx(sum(map(log_evidence, X)), rel=1e-12)
    assert "factorised" not in fit.detail


def test_rows_end_where_their_mask_does():
    lengths = torch.tensor([7, 3, 1, 5])
    fit = cavi(Problem(known, X, lengths), joint=[STATES])
    expected = sum(log_evidence(x[:n]) for x, n in zip(X, lengths.tolist(), strict=True))
    assert fit.bound == pytest.approx(expected, rel=1e-12)


def test_masked_members_of_a_joint_table_have_no_entropy():
    """Two states only, so that their factor is a table."""
    lengths = torch.tensor([2, 1, 1, 2])
    fit = cavi(Problem(known, X[:, :2], lengths), joint=[STATES[:2]])
    expected = sum(log_evidence(x[:n]) for x, n in zip(X, lengths.tolist(), strict=True))
    assert fit.bound == pytest.approx(expected, rel=1e-12)


def learnt(x):
    """Jumps and levels are latent too."""
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(3, 3, dtype=torch.float64)).to_event(1))
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        z = 0
        for t in range(x.shape[1]):
            z = pyro.sample(f"z{t}", dist.Categorical(jump[z]))
            pyro.sample(f"x{t}", dist.Normal(level[z], 0.8), obs=x[:, t])


def test_updates_are_optimal_and_the_bound_is_that_of_draws():
    conjugate, bounds = fitted(learnt, (X,), joint=[STATES], collapse=False)
    assert isinstance(conjugate.block_of["z0"], MarkovChainBlock)
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)


def test_a_chain_is_the_table_of_all_its_cases(monkeypatch):
    chain = ConjugateModel(learnt, (X,), joint=[STATES[:4], STATES[4:]])
    monkeypatch.setattr(plan, "is_markov_chain", lambda sites, terms: False)
    table = ConjugateModel(learnt, (X,), joint=[STATES[:4], STATES[4:]])
    assert isinstance(table.block_of["z0"], DiscreteBlock)
    for model in (chain, table):
        initialise(model, 0)
        for name, block in model.block_of.items():
            if name.startswith("z"):
                block.restore((torch.zeros(block.component_shape(0), dtype=torch.float64),))
    for _ in range(4):
        chain.sweep()
        table.sweep()
        assert chain.elbo() == pytest.approx(table.elbo(), rel=1e-12)
    for name in STATES:
        torch.testing.assert_close(
            distributions(chain)[name].probs, distributions(table)[name].probs
        )


def test_a_joint_chain_has_the_better_bound_and_comes_back_from_a_file(tmp_path):
    problem = Problem(learnt, X)
    joint, apart = cavi(problem, joint=[STATES], restarts=3), cavi(problem, restarts=3)
    assert joint.bound > apart.bound + 0.1
    assert apart.detail.endswith("q(z0) … q(z6) factorised, their dependence is lost")
    save(joint, tmp_path / "fit")
    loaded = load(tmp_path / "fit", problem)
    torch.testing.assert_close(loaded.marginal("z3").probs, joint.marginal("z3").probs)
    assert loaded.marginal("z3").probs.shape == (4, 3)
    weights = joint.log_weights(400)  # states summed out: never below the bound
    assert float(weights.mean()) > joint.bound - 4 * float(weights.std()) / 20


def test_equal_rows_share_their_chain():
    flips = (torch.rand(60, 3, generator=torch.Generator().manual_seed(2)) < 0.4).double()

    def model(flips):
        with pyro.plate("faces", 3):
            p = pyro.sample("p", dist.Beta(torch.ones(3, dtype=torch.float64), 1.0))
        with pyro.plate("rows", len(flips)):
            z = 0
            for t in range(3):
                z = pyro.sample(f"z{t}", dist.Categorical(JUMP[z]))
                pyro.sample(f"x{t}", dist.Bernoulli(p[z]), obs=flips[:, t])

    problem = Problem(model, flips)
    few, all_rows = (cavi(problem, joint=[STATES[:3]], collapse=c) for c in (True, False))
    assert few.bound == pytest.approx(all_rows.bound, rel=1e-10)
    first, second = (fit.marginal("z1").probs for fit in (few, all_rows))
    assert first.shape == (60, 3)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-3)


def test_states_that_are_no_neighbours_take_a_table():
    def model():
        a = pyro.sample("a", dist.Categorical(JUMP[0]))
        b = pyro.sample("b", dist.Categorical(JUMP[a]))
        c = pyro.sample("c", dist.Categorical(JUMP[b]))
        pyro.sample("x", dist.Normal(LEVEL[a] + LEVEL[c], 1.0), obs=torch.tensor(0.3))

    fit = cavi(Problem(model), joint=[("a", "b", "c")])
    assert isinstance(fit.factors[0].distribution, td.Categorical)
    assert fit.bound == pytest.approx(float(Problem(model).log_joint({})), rel=1e-6)


def test_states_of_other_plates_are_refused():
    def model():
        with pyro.plate("rows", 2):
            a = pyro.sample("a", dist.Categorical(JUMP[0]))
            b = pyro.sample("b", dist.Categorical(JUMP[a]))
            pyro.sample("x", dist.Normal(LEVEL[b], 1.0), obs=torch.zeros(2))
        c = pyro.sample("c", dist.Categorical(JUMP[0]))
        pyro.sample("y", dist.Normal(LEVEL[c], 1.0), obs=torch.tensor(0.0))

    with pytest.raises(NotSupportedError, match="different plates"):
        ConjugateModel(model, joint=[("a", "b", "c")])


# ---- the family ----------------------------------------------------------------------------------

SIZES = (2, 3, 2, 4)


def every_case():
    return torch.cartesian_prod(*(torch.arange(size) for size in SIZES))


@pytest.fixture
def chain():
    family = MarkovChainFamily(SIZES)
    source = torch.Generator().manual_seed(5)
    return MarkovChain(torch.randn(2, family.width, generator=source).double(), torch.tensor(SIZES))


def test_the_family_is_the_sum_over_all_cases(chain):
    cases = every_case()
    log_prob = chain.log_prob(cases.unsqueeze(1))  # [cases, 2]
    torch.testing.assert_close(log_prob.exp().sum(0), torch.ones(2).double())
    torch.testing.assert_close(-(log_prob.exp() * log_prob).sum(0), chain.entropy())
    for state, size in enumerate(SIZES):
        rows = torch.nn.functional.one_hot(cases[:, state], size).double()
        torch.testing.assert_close(log_prob.exp().T @ rows, chain.marginal(state))
    natural = (chain.potentials.clone().requires_grad_(),)
    (gradient,) = torch.autograd.grad(chain.family.log_normaliser(natural).sum(), natural)
    torch.testing.assert_close(gradient, chain.family.mean_parameters(natural)[0].detach())


def test_draws_have_the_probabilities_of_the_cases(chain):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = chain.sample((4000,))
    probability = chain.log_prob(every_case().unsqueeze(1)).exp()
    found = (drawn.unsqueeze(0) == every_case()[:, None, None]).all(-1).double().mean(1)
    error = (probability * (1 - probability) / 4000).sqrt()
    assert bool(((found - probability).abs() < 4.5 * error).all())
