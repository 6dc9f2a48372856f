"""Linear and generalised linear models, survival, item response: one guide style each."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoNormal,
    init_to_mean,
)
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroSample
from trial import counts, flips, randn, trial

positive = constraints.positive


@trial(
    "uniform-prior wide-guide param-lambda conditioned",
    {"a": (), "b": (), "sigma": ()},
    {"y": (12,)},
    is_quick=True,
)
def ruggedness():
    """The front page's regression: data by condition, a guide that is wider than a Uniform."""
    x = randn(12)

    def model(x):
        a = pyro.sample("a", dist.Normal(0.0, 10.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(a + b * x, sigma))

    def guide(x):
        a = pyro.param("a_loc", lambda: torch.tensor(0.0))
        b = pyro.param("b_loc", lambda: torch.tensor(0.0))
        scales = pyro.param("scales", lambda: torch.full((2,), 0.1), constraint=positive)
        spread = pyro.param("spread", lambda: torch.tensor(1.0), constraint=positive)
        pyro.sample("a", dist.Normal(a, scales[0]))
        pyro.sample("b", dist.Normal(b, scales[1]))
        pyro.sample("sigma", dist.LogNormal(spread.log(), 0.05))

    return poutine.condition(model, data={"y": 1 + 0.5 * x + 0.1 * randn(12, seed=1)}), guide, (x,)


@trial(
    "pyromodule pyrosample event-prior autoguide deterministic",
    {"linear.weight": (1, 2), "linear.bias": (1,), "sigma": ()},
    {"y": (10,)},
)
def bayesian_linear_layer():
    class Regression(PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = PyroModule[torch.nn.Linear](2, 1)
            self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
            self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

        def forward(self, x, y):
            sigma = pyro.sample("sigma", dist.HalfCauchy(1.0))
            mean = pyro.deterministic("mean", self.linear(x).squeeze(-1))
            with pyro.plate("data", len(x)):
                return pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    with torch.random.fork_rng():
        model = Regression()
    return model, AutoDiagonalNormal(model), (randn(10, 2), randn(10, seed=3))


@trial(
    "bernoulli-logits to-event multivariate-guide",
    {"weights": (3,)},
    {"y": (15,)},
    is_quick=True,
)
def logistic_regression():
    def model(x, y):
        weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("rows", x.shape[0]):
            pyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(3))
        root = pyro.param("root", 0.3 * torch.eye(3), constraint=constraints.lower_cholesky)
        pyro.sample("weights", dist.MultivariateNormal(loc, scale_tril=root))

    return model, guide, (randn(15, 3), flips(15))


@trial("poisson exposure lognormal-prior", {"rate": (2,)}, {"deaths": (8,)})
def rates_with_exposure():
    def model(group, exposure, deaths):
        with pyro.plate("groups", 2):
            rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(deaths)):
            pyro.sample("deaths", dist.Poisson(rate[group] * exposure), obs=deaths)

    def guide(group, exposure, deaths):
        with pyro.plate("groups", 2):
            loc = pyro.param("loc", torch.zeros(2))
            scale = pyro.param("scale", 0.2 * torch.ones(2), constraint=positive)
            pyro.sample("rate", dist.LogNormal(loc, scale))

    group = torch.arange(8) % 2
    return model, guide, (group, torch.arange(1.0, 9.0), counts(8))


@trial(
    "negative-binomial gamma-prior autoguide-list",
    {"level": (), "concentration": ()},
    {"y": (10,)},
)
def overdispersed_counts():
    def model(y):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        concentration = pyro.sample("concentration", dist.Gamma(2.0, 0.5))
        with pyro.plate("rows", len(y)):
            odds = level - concentration.log()
            pyro.sample("y", dist.NegativeBinomial(concentration, logits=odds), obs=y)

    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["level"])))
    guide.append(AutoDiagonalNormal(poutine.block(model, expose=["concentration"])))
    return model, guide, (counts(10),)


@trial(
    "hierarchical reparam non-centred studentt",
    {"mu": (), "tau": (), "theta_decentered": (8,)},
    {"y": (8,)},
)
def eight_schools():
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    @poutine.reparam(config={"theta": LocScaleReparam(0.0)})
    def model(y, sigma):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.StudentT(5.0, theta, sigma), obs=y)

    return model, AutoNormal(model), (y, sigma)


@trial(
    "survival censored mask weibull",
    {"log_scale": (), "shape": ()},
    {"died": (6,), "alive": (6,)},
)
def censored_survival():
    def model(time, is_dead):
        log_scale = pyro.sample("log_scale", dist.Normal(0.0, 1.0))
        shape = pyro.sample("shape", dist.LogNormal(0.0, 0.5))
        with pyro.plate("patients", len(time)):
            with poutine.mask(mask=is_dead):
                pyro.sample("died", dist.Weibull(log_scale.exp(), shape), obs=time)
            survived = torch.exp(-((time / log_scale.exp()) ** shape))
            with poutine.mask(mask=~is_dead):
                pyro.sample("alive", dist.Bernoulli(survived), obs=torch.ones(len(time)))

    def guide(time, is_dead):
        loc = pyro.param("loc", torch.zeros(2))
        scale = pyro.param("scale", torch.full((2,), 0.2), constraint=positive)
        pyro.sample("log_scale", dist.Normal(loc[0], scale[0]))
        pyro.sample("shape", dist.LogNormal(loc[1], scale[1]))

    time = torch.tensor([0.3, 1.2, 0.7, 2.0, 1.5, 0.9])
    return model, guide, (time, torch.tensor([True, True, False, True, False, True]))


@trial(
    "irt two-plates crossed missing-data",
    {"ability": (5,), "difficulty": (4,)},
    {"right": (5, 4)},
)
def item_response():
    def model(right, seen):
        students = pyro.plate("students", 5, dim=-2)
        items = pyro.plate("items", 4, dim=-1)
        with pyro.plate("ability_rows", 5):
            ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
        with items:
            difficulty = pyro.sample("difficulty", dist.Normal(0.0, 1.0))
        with students, items, poutine.mask(mask=seen):
            odds = ability.unsqueeze(-1) - difficulty
            pyro.sample("right", dist.Bernoulli(logits=odds), obs=right)

    right = flips(5, 4)
    seen = torch.ones(5, 4, dtype=torch.bool)
    seen[0, 0] = False
    right[0, 0] = torch.nan
    return model, AutoLowRankMultivariateNormal(model, rank=2), (right, seen)


@trial(
    "ordinal simplex-prior dirichlet-guide",
    {"p": (4,), "effect": ()},
    {"grade": (9,)},
    notices=["cannot be vectorised over draws"],
)
def ordinal_grades():
    def model(x, grade):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(4)))
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
        cutpoints = torch.logit(p.cumsum(-1)[:-1].clamp(1e-6, 1 - 1e-6))
        with pyro.plate("rows", len(x)):
            pyro.sample("grade", dist.OrderedLogistic(effect * x, cutpoints), obs=grade)

    def guide(x, grade):
        pseudo = pyro.param("pseudo", 2 * torch.ones(4), constraint=positive)
        pyro.sample("p", dist.Dirichlet(pseudo))
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample(
            "effect", dist.Normal(loc, pyro.param("s", torch.tensor(0.3), constraint=positive))
        )

    return model, guide, (randn(9), torch.arange(9) % 4)


@trial("map point-estimate autodelta", {"level": (), "sigma": ()}, {"y": (7,)}, is_quick=True)
def point_estimate():
    def model(y):
        level = pyro.sample("level", dist.Normal(0.0, 10.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level, sigma), obs=y)

    return model, AutoDelta(model, init_loc_fn=init_to_mean), (randn(7),)


@trial(
    "horseshoe half-cauchy nested-event scale-mixture",
    {"tau": (), "lambda": (4,), "beta": (4,), "noise": ()},
    {"y": (10,)},
)
def horseshoe():
    def model(x, y):
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        with pyro.plate("columns", x.shape[1]):
            local = pyro.sample("lambda", dist.HalfCauchy(1.0))
            beta = pyro.sample("beta", dist.Normal(0.0, tau * local))
        noise = pyro.sample("noise", dist.InverseGamma(2.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ beta, noise.sqrt()), obs=y)

    return model, AutoNormal(model), (randn(10, 4), randn(10, seed=5))


@trial(
    "lkj correlated-effects matrix-latent",
    {"scales": (2,), "root": (2, 2), "effects": (3, 2)},
    {"y": (9,)},
)
def correlated_effects():
    def model(group, x, y):
        with pyro.plate("effect_kinds", 2):
            scales = pyro.sample("scales", dist.HalfNormal(1.0))
        root = pyro.sample("root", dist.LKJCholesky(2, torch.tensor(2.0)))
        with pyro.plate("groups", 3):
            effects = pyro.sample(
                "effects",
                dist.MultivariateNormal(torch.zeros(2), scale_tril=scales.unsqueeze(-1) * root),
            )
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(effects[group, 0] + effects[group, 1] * x, 0.5), obs=y)

    return model, AutoDiagonalNormal(model), (torch.arange(9) % 3, randn(9), randn(9, seed=6))
