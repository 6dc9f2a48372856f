"""Time series, Gaussian processes, networks, minibatches, scopes: how a model is built."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.autoname import scope
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.infer.reparam import HaarReparam, TransformReparam
from pyro.nn import PyroModule, PyroParam
from trial import counts, flips, randn, trial

positive = constraints.positive


@trial(
    "walk markov continuous-latents sequential-sites",
    {"scale": (), **{f"level_{t}": () for t in range(4)}},
    {f"y_{t}": () for t in range(4)},
)
def local_level():
    def model(y):
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        level = torch.tensor(0.0)
        for t in pyro.markov(range(len(y))):
            level = pyro.sample(f"level_{t}", dist.Normal(level, scale))
            pyro.sample(f"y_{t}", dist.Normal(level, 0.5), obs=y[t])

    def guide(y):
        loc = pyro.param("loc", torch.zeros(4))
        s = pyro.param("s", 0.3 * torch.ones(5), constraint=positive)
        pyro.sample("scale", dist.LogNormal(0.0, s[4]))
        for t in pyro.markov(range(len(y))):
            pyro.sample(f"level_{t}", dist.Normal(loc[t], s[t]))

    return model, guide, (randn(4),)


@trial(
    "walk cumsum non-centred deterministic-in-plate",
    {"drift": (), "step": (6,)},
    {"y": (6,)},
)
def forecasting_walk():
    def model(y):
        drift = pyro.sample("drift", dist.Normal(0.0, 1.0))
        with pyro.plate("time", len(y), dim=-1):
            step = pyro.sample("step", dist.Normal(0.0, 0.3))
            level = pyro.deterministic("level", (drift + step).cumsum(-1))
            pyro.sample("y", dist.Normal(level, 0.5), obs=y)

    return model, AutoMultivariateNormal(model), (randn(6).cumsum(0),)


@trial("gp kernel cholesky-likelihood", {"length": (), "variance": (), "noise": ()}, {"y": (8,)})
def gaussian_process():
    def model(x, y):
        length = pyro.sample("length", dist.LogNormal(0.0, 0.5))
        variance = pyro.sample("variance", dist.LogNormal(0.0, 0.5))
        noise = pyro.sample("noise", dist.LogNormal(-1.0, 0.5))
        squares = (x.unsqueeze(-1) - x).square()
        kernel = variance * torch.exp(-0.5 * squares / length**2) + noise * torch.eye(len(x))
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), kernel), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(3))
        for i, name in enumerate(("length", "variance", "noise")):
            pyro.sample(name, dist.LogNormal(loc[i], 0.3))

    return model, guide, (torch.linspace(0, 2, 8), randn(8))


@trial("gp latent-function multivariate-latent whitened", {"f": (7,)}, {"y": (7,)})
def gp_classifier():
    def model(x, y):
        kernel = torch.exp(-0.5 * (x.unsqueeze(-1) - x).square()) + 1e-4 * torch.eye(len(x))
        f = pyro.sample("f", dist.MultivariateNormal(torch.zeros(len(x)), kernel))
        with pyro.plate("points", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=f), obs=y)

    return model, AutoMultivariateNormal(model), (torch.linspace(0, 3, 7), flips(7))


@trial(
    "vae pyro-module-statement amortised plate-of-images event-data",
    {"z": (6, 2)},
    {"x": (6, 4)},
    notices=["parameters of its own"],
    is_quick=True,
)
def small_vae():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = torch.nn.Sequential(
            torch.nn.Linear(2, 5), torch.nn.Softplus(), torch.nn.Linear(5, 4)
        )
        encoder = torch.nn.Linear(4, 4)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("images", len(x)):
            loc, scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    return model, guide, (flips(6, 4),)


@trial(
    "vae grey-pixels validate-args-false subsample dropout",
    {"z": (8, 2)},
    {"x": (8, 3)},
    notices=["parameters of its own"],
    refused={"automatic_guide": "use AutoMeanField or Amortized"},
)
def grey_vae():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(2, 3))
        encoder = torch.nn.Linear(3, 4)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("images", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            likelihood = dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1)
            pyro.sample("x", likelihood, obs=x[rows])

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("images", len(x), subsample_size=4) as rows:
            loc, scale = encoder(x[rows]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    return model, guide, (torch.sigmoid(randn(8, 3)),)


@trial("subsample global-latent plate-indices", {"level": (), "sigma": ()}, {"y": (20,)})
def minibatch_mean():
    def model(y):
        level = pyro.sample("level", dist.Normal(0.0, 5.0))
        sigma = pyro.sample("sigma", dist.Exponential(1.0))
        with pyro.plate("rows", len(y), subsample_size=5) as rows:
            pyro.sample("y", dist.Normal(level, sigma), obs=y[rows])

    def guide(y):
        loc = pyro.param("loc", torch.zeros(2))
        s = pyro.param("s", 0.2 * torch.ones(2), constraint=positive)
        pyro.sample("level", dist.Normal(loc[0], s[0]))
        pyro.sample("sigma", dist.LogNormal(loc[1], s[1]))

    return model, guide, (randn(20),)


@trial(
    "scope slashes-in-names nested-names",
    {"north/level": (), "south/level": ()},
    {"north/y": (3,), "south/y": (3,)},
    is_quick=True,
)
def scoped_regions():
    def region(y):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level, 1.0), obs=y)

    def model(north, south):
        with scope(prefix="north"):
            region(north)
        with scope(prefix="south"):
            region(south)

    return model, AutoNormal(model), (randn(3), randn(3, seed=1))


@trial(
    "pyroparam model-parameters empirical-bayes",
    {"theta": (4,)},
    {"y": (4,)},
    notices=["parameters of its own"],
)
def empirical_bayes():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = PyroParam(torch.tensor(0.0))
            self.scale = PyroParam(torch.tensor(1.0), constraint=positive)

        def forward(self, y):
            with pyro.plate("groups", len(y)):
                theta = pyro.sample("theta", dist.Normal(self.loc, self.scale))
                pyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = PyroParam(torch.zeros(4))
            self.scale = PyroParam(torch.ones(4), constraint=positive)

        def forward(self, y):
            with pyro.plate("groups", len(y)):
                pyro.sample("theta", dist.Normal(self.loc, self.scale))

    return Model(), Guide(), (randn(4),)


@trial("factor custom-potential no-data", {"u": (2,)}, {})
def banana():
    def model():
        u = pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("bend", -0.5 * (u[1] - u[0] ** 2) ** 2)

    def guide():
        loc = pyro.param("loc", torch.zeros(2))
        s = pyro.param("s", 0.5 * torch.ones(2), constraint=positive)
        pyro.sample("u", dist.Normal(loc, s).to_event(1))

    return model, guide, ()


@trial(
    "no-latents fixed-distribution",
    {},
    {"x": (4,)},
    refused={
        "explain": "nothing to infer",
        "own_guide": "nothing for preflight.. to infer",
        "automatic_guide": "nothing for svi",
        "nuts": "nothing for nuts",
    },
)
def nothing_to_infer():
    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    return model, lambda x: None, (randn(4),)


@trial("transform-reparam lognormal circle", {"angle": (), "scale_base": ()}, {"y": (5,)})
def transformed_scale():
    @poutine.reparam(config={"scale": TransformReparam()})
    def model(y):
        angle = pyro.sample("angle", dist.VonMises(0.0, 2.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(torch.cos(angle), scale), obs=y)

    return model, AutoNormal(model), (randn(5),)


@trial("haar-reparam time-series event-latent", {"walk_haar": (4,)}, {"y": (4,)})
def haar_walk():
    @poutine.reparam(config={"walk": HaarReparam(dim=-1)})
    def model(y):
        walk = pyro.sample("walk", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("time", 4):
            pyro.sample("y", dist.Normal(walk.cumsum(-1), 0.5), obs=y)

    return model, AutoNormal(model), (randn(4),)


@trial(
    "two-likelihoods shared-latent args-in-list kwargs-default",
    {"rate": ()},
    {"n": (), "gaps": (5,)},
    is_quick=True,
)
def events_and_gaps():
    def model(parts, prior_rate=1.0):
        n, gaps = parts
        rate = pyro.sample("rate", dist.Exponential(prior_rate))
        pyro.sample("n", dist.Poisson(10 * rate), obs=n)
        with pyro.plate("gaps_plate", len(gaps)):
            pyro.sample("gaps", dist.Exponential(rate), obs=gaps)

    def guide(parts, prior_rate=1.0):
        a = pyro.param("a", torch.tensor([2.0, 2.0]), constraint=positive)
        pyro.sample("rate", dist.Gamma(a[0], a[1]))

    return model, guide, ([torch.tensor(8.0), torch.tensor([0.5, 1.2, 0.3, 2.0, 0.9])],)


@trial(
    "factor-analysis orthogonal-plates matrix-event",
    {"loadings": (3, 2), "z": (6, 2), "noise": (3,)},
    {"x": (6, 3)},
)
def factor_analysis():
    def model(x):
        loadings = pyro.sample("loadings", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
        noise = pyro.sample("noise", dist.Gamma(2.0 * torch.ones(3), 2.0).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ loadings.T, noise).to_event(1), obs=x)

    return model, AutoNormal(model), (randn(6, 3),)


@trial("improper-prior flat", {"level": (), "slope": ()}, {"y": (6,)}, notices=["improper"])
def flat_prior():
    def model(x, y):
        level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), ()))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(level + slope * x, 1.0), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(2))
        pyro.sample("level", dist.Normal(loc[0], 0.4))
        pyro.sample("slope", dist.Normal(loc[1], 0.4))

    return model, guide, (randn(6), randn(6, seed=2))


@trial("binomial sequential-plate for-loop-plate", {"p": ()}, {f"k_{i}": () for i in range(3)})
def looped_plate():
    def model(n, k):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        for i in pyro.plate("clinics", len(k)):
            pyro.sample(f"k_{i}", dist.Binomial(n[i], p), obs=k[i])

    def guide(n, k):
        a = pyro.param("a", 2 * torch.ones(2), constraint=positive)
        pyro.sample("p", dist.Beta(a[0], a[1]))

    return model, guide, (torch.tensor([5.0, 6.0, 7.0]), torch.tensor([2.0, 3.0, 3.0]))


@trial("auxiliary mixture-guide is-auxiliary", {"m": ()}, {"y": (4,)})
def mixture_guide():
    def model(y):
        m = pyro.sample("m", dist.Normal(0.0, 3.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(m.abs(), 1.0), obs=y)

    def guide(y):
        logits = pyro.param("logits", torch.zeros(2))
        loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
        k = pyro.sample("k", dist.Categorical(logits=logits), infer={"is_auxiliary": True})
        pyro.sample("m", dist.Normal(loc[k], 0.5))

    return model, guide, (randn(4).abs() + 1,)


@trial("sir compartments scan-like dynamics", {"beta": (), "gamma": ()}, {"new": (2,)})
def epidemic():
    def model(new):
        beta = pyro.sample("beta", dist.LogNormal(0.0, 0.5))
        gamma = pyro.sample("gamma", dist.LogNormal(-1.0, 0.5))
        s, i, flows = torch.tensor(90.0), torch.tensor(10.0), []
        for _ in range(len(new)):
            flow = beta * s * i / 100
            s, i = s - flow, i + flow - gamma * i
            flows.append(flow.clamp(min=1e-3))
        pyro.sample("new", dist.Poisson(torch.stack(flows, -1)).to_event(1), obs=new)

    return model, AutoMultivariateNormal(model), (counts(2, rate=8.0),)
