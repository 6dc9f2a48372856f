"""The bound of every sweep against BayesPy's (Luttinen 2016), from the same starting point.

Both sides state the model in their own language. The factors updated first need no start; all
others start from the same parameters, and both update in the same order.
"""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.families import family_of_prior

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("bayespy")
    from bayespy import nodes
    from bayespy.inference import VB

SWEEPS = 20


def double(x):
    return torch.as_tensor(np.asarray(x), dtype=torch.float64)


def their_bounds(posterior, order):
    posterior.update(*order, repeat=SWEEPS, tol=0, verbose=False)
    return posterior.L[:SWEEPS]


def our_bounds(model, arguments, order, start, **options):
    """``start`` maps a site to the torch distribution that its factor starts at."""
    conjugate = ConjugateModel(model, arguments, order=order, **options)
    initialise(conjugate, 0)
    for name, q in start.items():
        family = family_of_prior(type(q).__name__)
        conjugate.block_of[name].restore(family.from_distribution(q))
    bounds = []
    for _ in range(SWEEPS):
        conjugate.sweep()
        bounds.append(conjugate.elbo())
    return bounds


def assert_equal(ours, theirs):
    assert ours[-1] > ours[0]
    assert ours == pytest.approx(list(theirs), rel=0, abs=1e-6)


def test_gaussian_mixture():
    generator = np.random.default_rng(0)
    rows, components, size = 150, 4, 2
    centres = np.array([[0.0, 0.0], [4.0, 1.0], [-3.0, 3.0]])
    y = generator.normal(size=(rows, size)) + centres[generator.integers(3, size=rows)]
    means = generator.normal(size=(components, size)) * 2

    weights = nodes.Dirichlet(np.full(components, 0.5), name="weights")
    z = nodes.Categorical(weights, plates=(rows,), name="z")
    mean = nodes.Gaussian(np.zeros(size), 0.1 * np.eye(size), plates=(components,), name="mean")
    precision = nodes.Wishart(size + 1, np.eye(size), plates=(components,), name="precision")
    observed = nodes.Mixture(z, nodes.Gaussian, mean, precision, name="y")
    observed.observe(y)
    weights.initialize_from_parameters(np.arange(1.0, components + 1))
    mean.initialize_from_parameters(means, 2 * np.eye(size))
    precision.initialize_from_parameters(5, 3 * np.eye(size))
    order = ["z", "weights", "mean", "precision"]
    theirs = their_bounds(VB(observed, z, mean, precision, weights), order)

    eye = torch.eye(size, dtype=torch.float64)

    def model(y):
        weights = pyro.sample("weights", dist.Dirichlet(torch.full((components,), 0.5).double()))
        with pyro.plate("components", components):
            wide = dist.MultivariateNormal(0 * eye[0], precision_matrix=0.1 * eye)
            mean = pyro.sample("mean", wide)
            prior = dist.Wishart(double(size + 1.0), covariance_matrix=eye)
            precision = pyro.sample("precision", prior)
        with pyro.plate("rows", rows):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("y", dist.MultivariateNormal(mean[z], precision_matrix=precision[z]), obs=y)

    start = {
        "weights": dist.Dirichlet(double(np.arange(1, components + 1))),
        "mean": dist.MultivariateNormal(double(means), precision_matrix=2 * eye),
        "precision": dist.Wishart(
            double([5.0] * components), covariance_matrix=(eye / 3).expand(components, size, size)
        ),
    }
    assert_equal(our_bounds(model, (double(y),), order, start), theirs)


def test_categorical_mixture():
    generator = np.random.default_rng(1)
    rows, columns, values, components = 80, 6, 3, 3
    truth = generator.dirichlet(np.full(values, 0.4), size=(components, columns))
    owner = generator.integers(components, size=rows)
    y = np.array([[generator.choice(values, p=truth[k, d]) for d in range(columns)] for k in owner])
    tables = generator.gamma(2.0, size=(columns, components, values)) + 0.5

    weights = nodes.Dirichlet(np.ones(components), name="weights")
    z = nodes.Categorical(weights, plates=(rows, 1), name="z")
    table = nodes.Dirichlet(np.full(values, 0.5), plates=(columns, components), name="table")
    observed = nodes.Mixture(z, nodes.Categorical, table, name="y")
    observed.observe(y)
    weights.initialize_from_parameters(np.ones(components))
    table.initialize_from_parameters(tables)
    order = ["z", "weights", "table"]
    theirs = their_bounds(VB(observed, z, table, weights), order)

    def model(y):
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(components).double()))
        with pyro.plate("columns", columns, dim=-2), pyro.plate("components", components, dim=-1):
            table = pyro.sample("table", dist.Dirichlet(torch.full((values,), 0.5).double()))
        with pyro.plate("rows", rows):
            z = pyro.sample("z", dist.Categorical(weights))
            chosen = dist.Categorical(table.transpose(0, 1)[z]).to_event(1)
            pyro.sample("y", chosen, obs=y)

    start = {
        "weights": dist.Dirichlet(torch.ones(components).double()),
        "table": dist.Dirichlet(double(tables)),
    }
    assert_equal(our_bounds(model, (torch.as_tensor(y),), order, start), theirs)


def test_latent_dirichlet_allocation():
    generator = np.random.default_rng(2)
    count, vocabulary, topics, words = 12, 9, 3, 300
    owner = np.sort(generator.integers(count, size=words))
    truth = generator.dirichlet(np.full(vocabulary, 0.2), size=topics)
    shares = generator.dirichlet(np.full(topics, 0.3), size=count)
    text = np.array([generator.choice(vocabulary, p=shares[d] @ truth) for d in owner])
    topic_start = generator.gamma(3.0, size=(topics, vocabulary)) + 0.2
    share_start = generator.gamma(3.0, size=(count, topics)) + 0.2

    theta = nodes.Dirichlet(np.full(topics, 0.3), plates=(count,), name="theta")
    phi = nodes.Dirichlet(np.full(vocabulary, 0.2), plates=(topics,), name="phi")
    z = nodes.Categorical(nodes.Gate(owner, theta), plates=(words,), name="z")
    observed = nodes.Categorical(nodes.Gate(z, phi), name="word")
    observed.observe(text)
    theta.initialize_from_parameters(share_start)
    phi.initialize_from_parameters(topic_start)
    order = ["z", "theta", "phi"]
    theirs = their_bounds(VB(observed, z, phi, theta), order)

    def model(text):
        with pyro.plate("topics", topics):
            phi = pyro.sample("phi", dist.Dirichlet(torch.full((vocabulary,), 0.2).double()))
        with pyro.plate("documents", count):
            theta = pyro.sample("theta", dist.Dirichlet(torch.full((topics,), 0.3).double()))
        with pyro.plate("words", words):
            z = pyro.sample("z", dist.Categorical(theta[torch.as_tensor(owner)]))
            pyro.sample("word", dist.Categorical(phi[z]), obs=text)

    start = {
        "theta": dist.Dirichlet(double(share_start)),
        "phi": dist.Dirichlet(double(topic_start)),
    }
    assert_equal(our_bounds(model, (torch.as_tensor(text),), order, start), theirs)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_linear_gaussian_factor_model(missing):
    generator = np.random.default_rng(3)
    rows, columns, size = 7, 40, 3
    y = generator.normal(size=(rows, 2)) @ generator.normal(size=(2, columns))
    y += 0.3 * generator.normal(size=y.shape)
    loadings = generator.normal(size=(rows, size))
    seen = generator.random(size=y.shape) >= missing

    alpha = nodes.Gamma(0.01, 0.01, plates=(size,), name="alpha")
    w = nodes.GaussianARD(0, alpha, shape=(size,), plates=(rows, 1), name="w")
    x = nodes.GaussianARD(0, 1, shape=(size,), plates=(1, columns), name="x")
    tau = nodes.Gamma(0.01, 0.01, name="tau")
    observed = nodes.GaussianARD(nodes.SumMultiply("d,d->", w, x), tau, name="y")
    observed.observe(y, mask=seen)
    alpha.initialize_from_parameters(2.0, 1.0)
    w.initialize_from_parameters(loadings[:, None, :], 10.0)
    tau.initialize_from_parameters(3.0, 1.5)
    order = ["x", "w", "alpha", "tau"]
    theirs = their_bounds(VB(observed, w, x, tau, alpha), order)

    def model(y):
        tau = pyro.sample("tau", dist.Gamma(double(0.01), double(0.01)))
        with pyro.plate("factors", size, dim=-1):
            alpha = pyro.sample("alpha", dist.Gamma(double(0.01), double(0.01)))
            with pyro.plate("rows", rows, dim=-2):
                w = pyro.sample("w", dist.Normal(double(0.0), alpha.rsqrt()))
            with pyro.plate("columns", columns, dim=-2):
                x = pyro.sample("x", dist.Normal(double(0.0), double(1.0)))
        with pyro.plate("rows_of_y", rows, dim=-2), pyro.plate("columns_of_y", columns, dim=-1):
            likelihood = dist.Normal(w @ x.T, tau.rsqrt())
            pyro.sample("y", likelihood.mask(torch.as_tensor(seen)), obs=y)

    eye = torch.eye(size, dtype=torch.float64)
    start = {
        "alpha": dist.Gamma(double([2.0] * size), double(1.0)),
        "w": dist.MultivariateNormal(double(loadings), precision_matrix=10 * eye),
        "tau": dist.Gamma(double(3.0), double(1.5)),
    }
    assert_equal(our_bounds(model, (double(y),), order, start), theirs)


def test_hidden_markov_model():
    generator = np.random.default_rng(4)
    states, length = 3, 40
    centres = np.array([-3.0, 0.0, 4.0])
    y = generator.normal(size=length) + centres[np.sort(generator.integers(states, size=length))]
    jumps = generator.gamma(2.0, size=(states, states)) + 0.5

    first = nodes.Dirichlet(np.ones(states), name="first")
    jump = nodes.Dirichlet(np.ones(states), plates=(states,), name="jump")
    z = nodes.CategoricalMarkovChain(first, jump, states=length, name="z")
    mean = nodes.GaussianARD(0, 0.1, plates=(states,), name="mean")
    tau = nodes.Gamma(1, 1, plates=(states,), name="tau")
    observed = nodes.Mixture(z, nodes.GaussianARD, mean, tau, name="y")
    observed.observe(y)
    first.initialize_from_parameters(np.array([1.0, 2.0, 3.0]))
    jump.initialize_from_parameters(jumps)
    mean.initialize_from_parameters(centres + 1, 2)
    tau.initialize_from_parameters(3, 2)
    order = ["z", "first", "jump", "mean", "tau"]
    theirs = their_bounds(VB(observed, z, mean, tau, jump, first), order)

    def model(y):
        first = pyro.sample("first", dist.Dirichlet(torch.ones(states).double()))
        with pyro.plate("states", states):
            jump = pyro.sample("jump", dist.Dirichlet(torch.ones(states).double()))
            mean = pyro.sample("mean", dist.Normal(double(0.0), double(0.1).rsqrt()))
            tau = pyro.sample("tau", dist.Gamma(double(1.0), double(1.0)))
        z = None
        for t in range(length):
            z = pyro.sample(f"z{t}", dist.Categorical(first if z is None else jump[z]))
            pyro.sample(f"y{t}", dist.Normal(mean[z], tau[z].rsqrt()), obs=y[t])

    start = {
        "first": dist.Dirichlet(double([1.0, 2.0, 3.0])),
        "jump": dist.Dirichlet(double(jumps)),
        "mean": dist.Normal(double(centres + 1), double(2.0).rsqrt()),
        "tau": dist.Gamma(double([3.0] * states), double([2.0] * states)),
    }
    path = [f"z{t}" for t in range(length)]
    ours = our_bounds(model, (double(y),), [*path, *order[1:]], start, joint=[path])
    assert_equal(ours, theirs)
