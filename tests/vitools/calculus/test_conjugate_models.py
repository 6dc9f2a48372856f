"""Small models from every supported piece, each checked against Pyro's own log density.

For each: the bound never falls, every update is the best of its coordinate, and the bound is the
Monte Carlo bound within four standard errors.
"""

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
from pyro import sample


def normals(*shape, seed=0):
    """Each call has a generator of its own: a case's data do not depend on which cases stand before it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def integers(high, *shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


Y = normals(20) + 1
GROUP = integers(4, 20, seed=1)
X = normals(20, 3, seed=2)
CASES = {}
DEAR = {"gmm_full", "hmm"}
"""Seconds each; gmm_diag, covs and hmm_joint have the same pieces."""


def case(*args, **options):
    def register(function):
        CASES[function.__name__] = (function, args, options)
        return function

    return register


@case(Y)
def normal_gamma(y):
    m = sample("m", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("n", len(y)):
        sample("y", dist.Normal(m, 1 / tau.sqrt()), obs=y)


@case(Y)
def hier(y):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    t = sample("t", dist.Gamma(2.0, 1.0))
    s = sample("s", dist.InverseGamma(3.0, 1.0))
    with pyro.plate("g", 4):
        a = sample("a", dist.Normal(mu, t**-0.5))
    with pyro.plate("n", len(y)):
        sample("y", dist.Normal(a[GROUP], s.sqrt()), obs=y)


@case(Y)
def regw(y):
    w = sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    b = sample("b", dist.Normal(0.0, 1.0))
    t = sample("t", dist.Exponential(1.0))
    with pyro.plate("n", 20):
        sample("y", dist.Normal((X * w).sum(-1) + b, t.rsqrt()), obs=y)


CASES["regw_joint"] = (regw, (Y,), {"joint": [("w", "b")]})
CASES["regw_fact"] = (regw, (Y,), {"factorised": ["w"]})


@case(Y)
def regmvn(y):
    w = sample("w", dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 0.3))
    t = sample("t", dist.Gamma(1.0, 1.0))
    with pyro.plate("n", 20):
        sample("y", dist.Normal(X @ w, t.rsqrt()), obs=y)


@case(X)
def wishart(X):
    L = sample("L", dist.Wishart(torch.tensor(5.0), covariance_matrix=torch.eye(3) + 0.2))
    m = sample("m", dist.MultivariateNormal(torch.zeros(3), torch.eye(3) * 4))
    with pyro.plate("n", 20):
        sample("x", dist.MultivariateNormal(m, precision_matrix=L), obs=X)


@case(X)
def gmm_full(X):
    pi = sample("pi", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("k", 2):
        L = sample("L", dist.Wishart(torch.tensor(5.0), covariance_matrix=torch.eye(3) + 0.2))
        m = sample("m", dist.MultivariateNormal(torch.zeros(3), torch.eye(3) * 4))
    with pyro.plate("n", 20):
        z = sample("z", dist.Categorical(pi))
        sample("x", dist.MultivariateNormal(m[z], precision_matrix=L[z]), obs=X)


@case(X)
def gmm_diag(X):
    pi = sample("pi", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("k", 2):
        m = sample("m", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        t = sample("t", dist.Gamma(torch.ones(3), 1.0).to_event(1))
    with pyro.plate("n", 20):
        z = sample("z", dist.Categorical(pi))
        sample("x", dist.Normal(m[z], t[z].rsqrt()).to_event(1), obs=X)


@case(X)
def gmm_onehot(X):
    pi = sample("pi", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("k", 2):
        m = sample("m", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        t = sample("t", dist.Gamma(torch.ones(3), 1.0).to_event(1))
    with pyro.plate("n", 20):
        z = sample("z", dist.OneHotCategorical(pi))
        sample("x", dist.Normal(z @ m, (z @ t).rsqrt()).to_event(1), obs=X)


@case(integers(5, 20, seed=3).double())
def pois_mix(x):
    p = sample("p", dist.Beta(1.0, 2.0))
    with pyro.plate("k", 2):
        lam = sample("lam", dist.Gamma(2.0, 1.0))
    with pyro.plate("n", 20):
        z = sample("z", dist.Bernoulli(p))
        sample("x", dist.Poisson(torch.where(z == 1, lam[0], lam[1])), obs=x)


@case((normals(20, seed=4) < -0.3).double())
def bern_mix(x):
    p = sample("p", dist.Beta(1.0, 2.0))
    q = sample("q", dist.Beta(2.0, 2.0))
    r = sample("r", dist.Beta(2.0, 1.0))
    with pyro.plate("n", 20):
        z = sample("z", dist.Bernoulli(p))
        sample("x", dist.Bernoulli(torch.stack([q, 1 - r])[z.long()]), obs=x)


@case(integers(3, 20, 4, seed=5))
def table2(x):
    a = sample("a", dist.Dirichlet(torch.ones(2)))
    b = sample("b", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("i", 2, dim=-2), pyro.plate("j", 3, dim=-1):
        tab = sample("tab", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("n", 20):
        z1 = sample("z1", dist.Categorical(a))
        z2 = sample("z2", dist.Categorical(b))
        sample("x", dist.Categorical(tab[z1, z2].unsqueeze(-2)).to_event(1), obs=x)


CASES["table2_joint"] = (table2, CASES["table2"][1], {"joint": [("z1", "z2")]})


@case(normals(6, 5, seed=6))
def fa(Y):
    t = sample("t", dist.Gamma(1.0, 1.0))
    with pyro.plate("k", 2, dim=-1), pyro.plate("r", 6, dim=-2):
        W = sample("W", dist.Normal(0.0, 1.0))
    with pyro.plate("c", 5):
        x = sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("r2", 6, dim=-2), pyro.plate("c2", 5, dim=-1):
        sample("y", dist.Normal(W @ x.T, t.rsqrt()), obs=Y)


CASES["fa_el"] = (fa, CASES["fa"][1], {"factorised": ["W", "x"]})
ymiss = Y.clone()
ymiss[3:6] = 50.0


@case(ymiss)
def missing(y):
    m = sample("m", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("n", len(y)):
        sample("y", dist.Normal(m, 1 / tau.sqrt()).mask(y < 40), obs=y)


@case(Y)
def obsmask(y):
    m = sample("m", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.Gamma(2.0, 1.0))
    mask = torch.arange(20) > 4
    with pyro.plate("n", len(y)):
        x = sample("x", dist.Normal(m, 1 / tau.sqrt()), obs=y, obs_mask=mask)
        sample("y", dist.Normal(x * 2, 1.0), obs=y)


@case(Y)
def scaled(y):
    m = sample("m", dist.Normal(0.0, 2.0))
    with pyro.plate("n", len(y)), pyro.poutine.scale(scale=0.3):
        sample("y", dist.Normal(m, 1.0), obs=y)


@case(Y)
def covs(y):
    t = sample("t", dist.Gamma(2.0, 1.0))
    u = sample("u", dist.Gamma(torch.ones(3) * 2, 1.0).to_event(1))
    m = sample("m", dist.MultivariateNormal(torch.zeros(3), covariance_matrix=torch.eye(3) / t))
    with pyro.plate("n", 20):
        sample("x", dist.MultivariateNormal(m, precision_matrix=torch.diag(u)), obs=X)


@case(Y)
def covs2(y):
    u = sample("u", dist.InverseGamma(torch.ones(3) * 2, 1.0).to_event(1))
    m = sample("m", dist.MultivariateNormal(torch.zeros(3), scale_tril=torch.eye(3)))
    with pyro.plate("n", 20):
        sample(
            "x", dist.MultivariateNormal(m, covariance_matrix=u.unsqueeze(-1) * torch.eye(3)), obs=X
        )


@case(Y)
def seqp(y):
    x = sample("x0", dist.Normal(0.0, 1.0))
    t = sample("t", dist.Gamma(2.0, 1.0))
    for i in pyro.plate("steps", 4):
        x = sample(f"x{i + 1}", dist.Normal(0.9 * x, t.rsqrt()))
        sample(f"y{i}", dist.Normal(x, 1.0), obs=y[i])


CASES["seqp_joint"] = (seqp, (Y,), {"joint": [tuple(f"x{i}" for i in range(5))]})


@case(Y)
def shapes(y):
    w = sample("w", dist.Normal(torch.zeros(6), 1.0).to_event(1))
    W = w.reshape(2, 3)
    v = torch.cat([W[0], W[1, :2]])
    s = torch.stack([v[1:], v[:-1]], -1).sum(-1)
    sample("y", dist.Normal(s.mean() + W.T[2, 1] * 2, 1.0), obs=y[0])
    sample("q", dist.Normal((w**2).sum(), 1.0), obs=y[1]) if False else None
    sample("yy", dist.Normal(torch.einsum("ij,j->i", W, X[0]), 1.0).to_event(1), obs=y[:2])
    sample("y3", dist.Normal(w.cumsum(0), 1.0).to_event(1), obs=y[:6])


@case(Y)
def ising(y):
    with pyro.plate("i", 3):
        z = sample("z", dist.Bernoulli(torch.tensor([0.3, 0.5, 0.6])))
    m = sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("n", 20):
        sample("y", dist.Normal(m * z[GROUP % 3] + 0.5, 1.0), obs=y)


@case(Y)
def lognorm(y):
    m = sample("m", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.Gamma(2.0, 1.0))
    p = sample("p", dist.Beta(1.0, 1.0))
    th = sample("th", dist.Dirichlet(torch.ones(3)))
    r = sample("r", dist.Gamma(1.0, 1.0))
    with pyro.plate("n", len(y)):
        sample("y", dist.LogNormal(m, 1 / tau.sqrt()), obs=y.exp())
        sample("b", dist.Binomial(5, p), obs=GROUP.double())
        sample("g", dist.Geometric(p), obs=GROUP.double())
        sample("nb", dist.NegativeBinomial(3, 1 - p), obs=GROUP.double())
        sample("mu", dist.Multinomial(6, th), obs=torch.tensor([1.0, 2, 3]).expand(20, 3))
        sample("ga", dist.Gamma(3.0, r), obs=y.exp())
        sample("ex", dist.Exponential(2 * r), obs=y.exp())


@case(Y)
def outside(y):
    m = sample("m", P0)
    with pyro.plate("n", 20):
        sample("y", dist.Normal(m, 1.0), obs=y)


P0 = dist.Normal(0.0, 1.0)


@case(integers(5, 30, seed=7))
def lda(w):
    doc = torch.arange(30) // 6
    with pyro.plate("t", 3):
        phi = sample("phi", dist.Dirichlet(torch.ones(5)))
    with pyro.plate("d", 5):
        th = sample("th", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("w", 30):
        z = sample("z", dist.Categorical(th[doc]))
        sample("x", dist.Categorical(phi[z]), obs=w)


@case(Y)
def one(y):
    with pyro.plate("k", 1):
        m = sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("n", 20):
        sample("y", dist.Normal(m, 1.0), obs=y)


@case(Y)
def rnd(y):
    w = sample("w", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
    a = w[GROUP]
    b = w[(GROUP + 1) % 4]
    with pyro.plate("n", 20):
        sample("y", dist.Normal(a - b, 1.0), obs=y)


@case(Y)
def hmm(y):
    with pyro.plate("s", 2):
        P = sample("P", dist.Dirichlet(torch.ones(2)))
        m = sample("m", dist.Normal(0.0, 1.0))
    z = sample("z0", dist.Categorical(torch.ones(2) / 2))
    for i in range(4):
        z = sample(f"z{i + 1}", dist.Categorical(P[z]))
        sample(f"y{i}", dist.Normal(m[z], 1.0), obs=y[i])


CASES["hmm_joint"] = (hmm, (Y,), {"joint": [tuple(f"z{i}" for i in range(5))]})


# torch warns of a singular Wishart draw although it redraws it.
@pytest.mark.filterwarnings("ignore:Singular sample")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in DEAR)) for n in CASES]
)
def test_model(name):
    model, args, options = CASES[name]
    conjugate, bounds = fitted(model, args, **options)
    assert_never_falls(bounds)
    if all(len(block.names) == 1 for block in conjugate.blocks):
        assert_bound_matches_monte_carlo(conjugate, model, args)
    if "factorised" not in options:
        assert_updates_are_optimal(conjugate)
