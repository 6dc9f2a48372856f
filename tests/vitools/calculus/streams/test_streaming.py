"""Local latents of every family, swept in chunks: the numbers of the dense path, in less memory."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import assert_bound_matches_monte_carlo, assert_never_falls, fitted
from pyro import sample

import vitools.calculus.streams.stream_plan as streaming
from vitools.calculus.model import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.engines.cavi.outcome import distributions

N = 30
_generator = torch.Generator().manual_seed(3)


def normals(*shape):
    return torch.randn(shape, generator=_generator, dtype=torch.float64)


Y = normals(N)
YY = normals(N, 4)
SEEN = torch.rand(N, 4, generator=_generator) < 0.7
COUNTS = torch.randint(5, (N,), generator=_generator).double()
TABLE = torch.randint(5, (N, 3), generator=_generator).double()
ROUNDED = Y.round()
MODELS = {}


def streams(*names):
    def register(function):
        MODELS[function.__name__] = (function, set(names))
        return function

    return register


def loadings():
    tau = sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("features", 4):
        w = sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        mu = sample("mu", dist.Normal(0.0, 1.0))
    return w, mu, tau


@streams("x")
def factors():
    w, mu, tau = loadings()
    with pyro.plate("rows", N):
        x = sample("x", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
        sample("y", dist.Normal(x @ w.T + mu, tau.rsqrt()).to_event(1), obs=YY)


@streams("x")
def factors_of_two_plates():
    """The plates of the data are not the plates of the factors."""
    tau = sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("features", 4):
        w = sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", N):
        x = sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("d", 4, dim=-2), pyro.plate("n", N, dim=-1):
        sample("y", dist.Normal(w @ x.T, tau.rsqrt()), obs=YY.T)


@streams("x")
def missing():
    """Each row sees other features, so each has its own covariance."""
    w, mu, tau = loadings()
    with pyro.plate("rows", N):
        x = sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        y = dist.Normal(x @ w.T + mu, tau.rsqrt()).mask(SEEN).to_event(1)
        sample("y", y, obs=YY)


@streams("u")
def student():
    m, tau = sample("m", dist.Normal(0.0, 1.0)), sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", N):
        u = sample("u", dist.Gamma(2.0, 2.0))
        sample("y", dist.Normal(m, (tau * u).rsqrt()), obs=Y)


@streams("u")
def repeated_rows():
    """Equal rows are collapsed: sums are weighted with their multiplicities."""
    m = sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", N):
        u = sample("u", dist.InverseGamma(3.0, 2.0))
        sample("y", dist.Normal(m, u.sqrt()), obs=ROUNDED)


@streams("p")
def betas():
    rate = sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("rows", N):
        p = sample("p", dist.Beta(1.5, 2.0))
        sample("count", dist.Binomial(4, p), obs=COUNTS)
        sample("other", dist.Poisson(rate), obs=COUNTS)


@streams("p")
def dirichlets():
    with pyro.plate("rows", N):
        p = sample("p", dist.Dirichlet(torch.ones(3)))
        sample("counts", dist.Multinomial(12, p, validate_args=False), obs=TABLE)


@streams("x")
def own_data_of_each_element():
    """The coefficient of x_nd varies with n and d: nothing to multiply as matrices."""
    m = sample("m", dist.Normal(0.0, 1.0))
    t = sample("t", dist.Gamma(1.0, 1.0))
    with pyro.plate("columns", 4, dim=-1), pyro.plate("rows", N, dim=-2):
        x = sample("x", dist.Normal(m, t.rsqrt()))
        sample("y", dist.Normal(x * COUNTS.unsqueeze(-1) + YY.abs(), 1.0), obs=YY)


@streams("r_unobserved")
def partly_observed():
    m = sample("m", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", N):
        r = sample("r", dist.Normal(m, 1.0), obs=Y, obs_mask=Y > 0)
        sample("y", dist.Normal(r * 2, 1.0), obs=YY[:, 0])


@streams("z")
def tables_of_data():
    """Known probabilities of each row's own."""
    known = YY.softmax(-1)
    with pyro.plate("k", 4):
        m = sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", N):
        z = sample("z", dist.Categorical(known))
        sample("y", dist.Normal(m[z], 1.0), obs=Y)


@streams("z")
def words_of_few_documents():
    """The data's table of a word holds its document, which the topics share, before its letters."""
    words = (YY.abs() * 10).long() % 3
    with pyro.plate("topics", 2):
        beta = sample("beta", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("documents", 4, dim=-2):
        theta = sample("theta", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("words", N, dim=-1):
            z = sample("z", dist.Categorical(theta))
            sample("y", dist.Categorical(beta[z]), obs=words.T)


@streams()
def coupled():
    """A mixture of Student distributions: the scales depend on the cases."""
    with pyro.plate("k", 2):
        m = sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", N):
        z = sample("z", dist.Bernoulli(0.4)).long()
        u = sample("u", dist.Gamma(2.0, 2.0))
        sample("y", dist.Normal(m[z], u.rsqrt()), obs=Y)


@streams("z")
def two_plates_of_cases():
    """Cases of rows and of columns: only one of them can be streamed."""
    with pyro.plate("i", 2, dim=-2), pyro.plate("j", 3, dim=-1):
        m = sample("m", dist.Normal(0.0, 2.0))
    with pyro.plate("columns", 4):
        c = sample("c", dist.Categorical(torch.ones(3) / 3))
    with pyro.plate("rows", N):
        z = sample("z", dist.Bernoulli(0.5)).long()
    with pyro.plate("rows2", N, dim=-2), pyro.plate("columns2", 4, dim=-1):
        sample("y", dist.Normal(m[z.unsqueeze(-1), c], 1.0), obs=YY)


def both(name, monkeypatch):
    """By chunks and dense, sites apart: x and its mean would share a factor in so few rows."""
    function, _ = MODELS[name]
    monkeypatch.setattr(streaming, "STREAMED_ROWS", 2)
    short = ConjugateModel(function, joint=())
    monkeypatch.setattr(streaming, "can_stream", lambda *_: False)
    return short, ConjugateModel(function, joint=())


def bounds(model, start, locals_first, sweeps=4):
    for block in model.blocks:
        if block.title in start:
            block.restore(start[block.title])
    model.order = [*locals_first(model), *(b for b in model.order if b not in locals_first(model))]
    found = []
    for _ in range(sweeps):
        model.sweep()
        found.append(model.elbo())
    return found


@pytest.mark.parametrize("name", MODELS)
def test_as_the_dense_path(name, monkeypatch):
    """Equal bounds from equal globals, with chunks of a few rows; equal factors at the end."""
    short, dense = both(name, monkeypatch)
    monkeypatch.setattr(StreamedBlock, "_chunks", lambda b: chunks_of(7, b.count))
    names = {b.title for b in short.blocks if isinstance(b, StreamedBlock)}
    assert names == MODELS[name][1]
    initialise(dense, 0)
    start = {b.title: b.natural for b in dense.blocks if b.title not in names}

    def local(model):
        return [b for b in model.order if b.title in names]

    assert bounds(short, start, local) == pytest.approx(bounds(dense, start, local), rel=1e-10)
    ours, theirs = distributions(short), distributions(dense)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        values = {site: q.sample((3,)) for site, q in theirs.items()}
    for site, expected in theirs.items():
        made = ours[site]
        assert made.batch_shape == expected.batch_shape
        assert made.event_shape == expected.event_shape
        torch.testing.assert_close(
            made.log_prob(values[site]), expected.log_prob(values[site]), rtol=1e-8, atol=1e-8
        )


def chunks_of(step, count):
    return [(start, min(start + step, count)) for start in range(0, count, step)]


@pytest.mark.parametrize("name", ["factors", "missing", "student", "two_plates_of_cases"])
def test_bound_is_the_monte_carlo_bound(name, monkeypatch):
    monkeypatch.setattr(streaming, "STREAMED_ROWS", 2)
    conjugate, found = fitted(MODELS[name][0])
    assert_never_falls(found)
    assert_bound_matches_monte_carlo(conjugate, MODELS[name][0], ())


def test_one_covariance_for_all_rows(monkeypatch):
    """Without missing data a factor model has one covariance, not one for each row."""
    monkeypatch.setattr(streaming, "STREAMED_ROWS", 2)
    conjugate, _ = fitted(factors)
    block = conjugate.block_of["x"].materialised()
    assert block.covariance.shape == (1, 2, 2)


def test_a_batch_of_states(monkeypatch):
    """Updates look at no values: under vmap each state of a batch is swept as it would be alone."""
    monkeypatch.setattr(streaming, "STREAMED_ROWS", 2)
    for name in ("missing", "student", "tables_of_data", "own_data_of_each_element"):
        model = ConjugateModel(MODELS[name][0], joint=())
        states = []
        for seed in range(2):
            initialise(model, seed)
            states.append([block.natural for block in model.blocks])

        def swept(state, model=model):
            for block, natural in zip(model.blocks, state, strict=True):
                block.restore(natural)
            model.sweep()
            return [block.natural for block in model.blocks]

        alone = [swept(state) for state in states]
        stacked = [
            tuple(torch.stack(pair) for pair in zip(*naturals, strict=True))
            for naturals in zip(*states, strict=True)
        ]
        together = torch.vmap(swept)(stacked)
        for i, expected in enumerate(alone):
            for found, wanted in zip(together, expected, strict=True):
                for a, b in zip(found, wanted, strict=True):
                    torch.testing.assert_close(a[i], b)


def test_few_rows_are_not_streamed():
    model = ConjugateModel(factors)
    assert not any(isinstance(block, StreamedBlock) for block in model.blocks)
