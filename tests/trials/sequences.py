"""Models in time: loops, chains, compartments, state spaces; longer programs, as examples have them."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDiagonalNormal
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroSample
from pyro.ops.indexing import Vindex
from torch import nn
from torch.distributions import constraints
from trial import counts, flips, randn, trial

positive, unit = constraints.positive, constraints.unit_interval


def log_normal(name, loc=0.0, scale=0.1):
    """A positive latent of a guide, with parameters of its own."""
    centre = pyro.param(f"{name}_loc", torch.tensor(float(loc)))
    width = pyro.param(f"{name}_scale", torch.tensor(float(scale)), constraint=positive)
    return pyro.sample(name, dist.LogNormal(centre, width))


def gaussian(name, loc=0.0, scale=0.1):
    centre = pyro.param(f"{name}_loc", torch.tensor(float(loc)))
    width = pyro.param(f"{name}_scale", torch.tensor(float(scale)), constraint=positive)
    return pyro.sample(name, dist.Normal(centre, width))


@trial(
    "autoregressive second-order loop-of-observations interval-prior",
    {"alpha_1": (), "alpha_2": (), "const": (), "sigma": ()},
    {f"y_{t}": () for t in range(2, 12)},
)
def second_order_autoregression():
    def step(previous, before, alpha_1, alpha_2, const):
        return const + alpha_1 * previous + alpha_2 * before

    def model(y):
        alpha_1 = pyro.sample("alpha_1", dist.Uniform(-1.0, 1.0))
        alpha_2 = pyro.sample("alpha_2", dist.Uniform(-1.0, 1.0))
        const = pyro.sample("const", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        previous, before = y[1], y[0]
        for t in range(2, len(y)):
            mean = step(previous, before, alpha_1, alpha_2, const)
            pyro.sample(f"y_{t}", dist.Normal(mean, sigma), obs=y[t])
            previous, before = y[t], previous

    def simulated(length):
        """A stationary series: the roots of 1 - 0.5 z + 0.2 z² lie outside the unit circle."""
        noise = randn(length)
        series = [torch.tensor(0.3), torch.tensor(0.1)]
        for t in range(2, length):
            series.append(0.1 + 0.5 * series[-1] - 0.2 * series[-2] + 0.3 * noise[t])
        return torch.stack(series)

    def guide(y):
        for name in ("alpha_1", "alpha_2"):
            a = pyro.param(f"{name}_a", torch.tensor(3.0), constraint=positive)
            b = pyro.param(f"{name}_b", torch.tensor(3.0), constraint=positive)
            spread = dist.transforms.AffineTransform(-1.0, 2.0)
            pyro.sample(name, dist.TransformedDistribution(dist.Beta(a, b), [spread]))
        centre = pyro.param("const_loc", torch.tensor(0.0))
        width = pyro.param("const_scale", torch.tensor(0.2), constraint=positive)
        pyro.sample("const", dist.Normal(centre, width))
        log_normal("sigma", -1.0)

    return model, guide, (simulated(12),)


@trial(
    "capture-recapture individual-states binary-chain mask-by-first-capture vectorised-plate",
    {"phi": (), "rho": (), **{f"z_{t}": (5,) for t in range(4)}},
    {f"y_{t}": (5,) for t in range(4)},
)
def cormack_jolly_seber():
    history = torch.tensor(
        [
            [1.0, 1.0, 0.0, 0.0],
            [0.0, 1.0, 1.0, 0.0],
            [0.0, 1.0, 0.0, 1.0],
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 1.0],
        ]
    )

    def model(history):
        animals, occasions = history.shape
        phi = pyro.sample("phi", dist.Uniform(0.0, 1.0))
        rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
        with pyro.plate("animals", animals, dim=-1):
            z = torch.ones(animals)
            first = torch.zeros(animals).bool()
            for t in pyro.markov(range(occasions)):
                alive = torch.where(first, phi * z, torch.ones(()))
                z = pyro.sample(f"z_{t}", dist.Bernoulli(alive), infer={"enumerate": "parallel"})
                with poutine.mask(mask=first):
                    pyro.sample(f"y_{t}", dist.Bernoulli(rho * z), obs=history[:, t])
                first = first | history[:, t].bool()

    def guide(history):
        for name in ("phi", "rho"):
            a = pyro.param(f"{name}_a", torch.tensor(2.0), constraint=positive)
            b = pyro.param(f"{name}_b", torch.tensor(2.0), constraint=positive)
            pyro.sample(name, dist.Beta(a, b))

    def seen_at_least_once(history):
        return bool((history.sum(-1) > 0).all())

    assert seen_at_least_once(history)
    return model, guide, (history,)


@trial(
    "exponential-smoothing recursion-in-latents seasonal beta-prior",
    {
        "level_smoothing": (),
        "trend_smoothing": (),
        "level": (),
        "trend": (),
        "noise": (),
        "season": (3,),
    },
    {"y": (6,)},
)
def holt_winters():
    seasons = 3

    def smooth(y, level, trend, season, level_smoothing, trend_smoothing):
        means = []
        for t in range(len(y)):
            means.append(level + trend + season[..., t % seasons])
            new = level_smoothing * (y[t] - season[..., t % seasons])
            new = new + (1 - level_smoothing) * (level + trend)
            trend = trend_smoothing * (new - level) + (1 - trend_smoothing) * trend
            level = new
        return torch.stack(means, -1)

    def model(y):
        level_smoothing = pyro.sample("level_smoothing", dist.Beta(1.0, 1.0))
        trend_smoothing = pyro.sample("trend_smoothing", dist.Beta(1.0, 1.0))
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        trend = pyro.sample("trend", dist.Normal(0.0, 1.0))
        season = pyro.sample("season", dist.Normal(0.0, 1.0).expand([seasons]).to_event(1))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        mean = smooth(y, level, trend, season, level_smoothing, trend_smoothing)
        with pyro.plate("time", len(y)):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)

    def guide(y):
        for name in ("level_smoothing", "trend_smoothing"):
            a = pyro.param(f"{name}_ab", torch.ones(2) * 2, constraint=positive)
            pyro.sample(name, dist.Beta(a[0], a[1]))
        for name in ("level", "trend"):
            gaussian(name)
        loc = pyro.param("season_loc", torch.zeros(seasons))
        scale = pyro.param("season_scale", 0.2 * torch.ones(seasons), constraint=positive)
        pyro.sample("season", dist.Normal(loc, scale).to_event(1))
        log_normal("noise", -0.5)

    y = torch.tensor([0.1, 0.9, -0.5, 0.4, 1.3, -0.2])
    return model, guide, (y,)


@trial(
    "ode predator-prey euler-loop lognormal-observations vector-event",
    {"theta": (4,), "start": (2,), "sigma": (2,)},
    {"y": (6, 2)},
)
def predator_prey():
    def derivative(state, theta):
        prey, predators = state[..., 0], state[..., 1]
        alpha, beta, gamma, delta = theta.unbind(-1)
        return torch.stack(
            [(alpha - beta * predators) * prey, (-gamma + delta * prey) * predators], -1
        )

    def solve(start, theta, steps):
        states, state = [], start
        for _ in range(steps):
            states.append(state)
            for _ in range(2):
                state = (state + 0.1 * derivative(state, theta)).clamp(min=1e-3)
        return torch.stack(states, -2)

    def model(y):
        centre = torch.tensor([1.0, 0.05, 1.0, 0.05])
        spread = torch.tensor([0.2, 0.02, 0.2, 0.02])
        theta = pyro.sample("theta", dist.LogNormal(centre.log(), spread).to_event(1))
        start = pyro.sample("start", dist.LogNormal(2.0, 0.5).expand([2]).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5).expand([2]).to_event(1))
        path = solve(start, theta, len(y))
        with pyro.plate("time", len(y)):
            noise = sigma.unsqueeze(-2)
            pyro.sample("y", dist.LogNormal(path.log(), noise).to_event(1), obs=y)

    def guide(y):
        for name, size, centre in (("theta", 4, -1.5), ("start", 2, 2.0), ("sigma", 2, -1.0)):
            loc = pyro.param(f"{name}_loc", torch.full((size,), centre))
            scale = pyro.param(f"{name}_scale", 0.1 * torch.ones(size), constraint=positive)
            pyro.sample(name, dist.LogNormal(loc, scale).to_event(1))

    def simulated():
        theta = torch.tensor([1.0, 0.05, 1.0, 0.05])
        path = solve(torch.tensor([8.0, 7.0]), theta, 6)
        return path * (0.2 * randn(6, 2)).exp()

    return model, guide, (simulated(),)


@trial(
    "volatility markov-walk student-returns many-sites",
    {"step": (), "nu": (), **{f"h_{t}": () for t in range(6)}},
    {f"r_{t}": () for t in range(6)},
)
def stochastic_volatility():
    def model(returns):
        step = pyro.sample("step", dist.Exponential(20.0))
        nu = pyro.sample("nu", dist.Gamma(4.0, 0.5))
        h = torch.zeros(())
        for t in pyro.markov(range(len(returns))):
            h = pyro.sample(f"h_{t}", dist.Normal(h, step))
            pyro.sample(f"r_{t}", dist.StudentT(2 + nu, 0.0, h.exp()), obs=returns[t])

    class Guide(PyroModule):
        """A mean field over the path, with one global site each."""

        def __init__(self, length):
            super().__init__()
            self.length = length

        def forward(self, returns):
            log_normal("step", -3.0)
            log_normal("nu", 2.0)
            locs = pyro.param("path_loc", torch.zeros(self.length))
            scales = pyro.param("path_scale", 0.1 * torch.ones(self.length), constraint=positive)
            for t in pyro.markov(range(self.length)):
                pyro.sample(f"h_{t}", dist.Normal(locs[t], scales[t]))

    def returns_of(prices):
        return prices.log().diff()

    prices = (0.02 * randn(7).cumsum(0)).exp()
    assert len(returns_of(prices)) == 6
    guide = Guide(6)

    def explained(path):
        return path.exp().mean()

    assert float(explained(torch.zeros(2))) == 1.0
    return model, guide, (returns_of(prices),)


@trial(
    "factorial-hmm two-chains markov-history enumeration-config plate-of-sequences dim-minus-two",
    {
        "probs_w": (2, 2), "probs_x": (2, 2), "probs_y": (2, 2, 2),
        **{f"{name}_{t}": (3, 1) for t in range(3) for name in "wx"},
    },
    {f"y_{t}": (3, 2) for t in range(3)},
)  # fmt: skip
def factorial_hidden_markov():
    """Two hidden chains drive the notes together, as in the examples on polyphonic music."""
    hidden, tones = 2, 2

    @config_enumerate
    def model(sequences, lengths):
        count, steps, _ = sequences.shape
        stay = 0.9 * torch.eye(hidden) + 0.1
        probs_w = pyro.sample("probs_w", dist.Dirichlet(stay).to_event(1))
        probs_x = pyro.sample("probs_x", dist.Dirichlet(stay).to_event(1))
        probs_y = pyro.sample(
            "probs_y", dist.Beta(0.5, 0.5).expand([hidden, hidden, tones]).to_event(3)
        )
        plate = pyro.plate("tones", tones, dim=-1)
        with pyro.plate("sequences", count, dim=-2):
            w, x = torch.tensor(0), torch.tensor(0)
            for t in pyro.markov(range(steps)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    w = pyro.sample(f"w_{t}", dist.Categorical(Vindex(probs_w)[w]))
                    x = pyro.sample(f"x_{t}", dist.Categorical(Vindex(probs_x)[x]))
                    with plate:
                        tone = torch.arange(tones)
                        p = Vindex(probs_y)[w, x, tone]
                        pyro.sample(f"y_{t}", dist.Bernoulli(p), obs=sequences[:, t])

    def guide(sequences, lengths):
        for name in ("probs_w", "probs_x"):
            a = pyro.param(name + "_a", torch.ones(hidden, hidden), constraint=positive)
            pyro.sample(name, dist.Dirichlet(a).to_event(1))
        b = pyro.param("y_b", torch.ones(2, hidden, hidden, tones), constraint=positive)
        pyro.sample("probs_y", dist.Beta(b[0], b[1]).to_event(3))

    return model, guide, (flips(3, 3, 2), torch.tensor([3, 1, 2]))


@trial(
    "state-space local-level reparam-config several-loc-scales seasonal-dummy",
    {"drift": (), "sd": (), **{f"level_{t}_decentered": () for t in range(5)}, "season": (2,)},
    {"y": (5,)},
)
def local_level_with_reparam():
    """A level that drifts, with a season of two steps.

    Each level is written as its distance from the one before, by a handler around the model; a guide
    draws these distances.
    """
    length = 5
    config = {f"level_{t}": LocScaleReparam(0.0) for t in range(length)}

    def season_of(t, season):
        return season[..., t % 2]

    @poutine.reparam(config=config)
    def model(y):
        drift = pyro.sample("drift", dist.Normal(0.0, 0.1))
        sd = pyro.sample("sd", dist.LogNormal(-1.0, 0.5))
        season = pyro.sample("season", dist.Normal(torch.zeros(2), 0.5).to_event(1))
        level, means = torch.zeros(()), []
        for t in range(length):
            level = pyro.sample(f"level_{t}", dist.Normal(level + drift, sd))
            means.append(level + season_of(t, season))
        with pyro.plate("time", length):
            pyro.sample("y", dist.Normal(torch.stack(means, -1), 0.3), obs=y)

    class Guide(PyroModule):
        def forward(self, y):
            for name, loc, scale in (("drift", 0.0, 0.05), ("sd", -1.0, 0.2)):
                centre = pyro.param(f"{name}_loc", torch.tensor(loc))
                width = pyro.param(f"{name}_width", torch.tensor(scale), constraint=positive)
                family = dist.LogNormal if name == "sd" else dist.Normal
                pyro.sample(name, family(centre, width))
            loc = pyro.param("season_loc", torch.zeros(2))
            pyro.sample("season", dist.Normal(loc, 0.2).to_event(1))
            for t in range(length):
                where = pyro.param(f"step_{t}", torch.tensor(0.0))
                pyro.sample(f"level_{t}_decentered", dist.Normal(where, 0.5))

    return model, Guide(), (torch.tensor([0.2, -0.1, 0.5, 0.4, 0.9]),)


@trial(
    "deep-markov network-transition pyromodule-submodules gated sequence-of-vectors",
    {"scale": (), **{f"z_{t}": (3, 2) for t in range(3)}},
    {f"x_{t}": (3, 4) for t in range(3)},
)
def deep_markov():
    class Transition(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.gate = nn.Linear(size, size)
            self.proposal = nn.Linear(size, size)

        def forward(self, z):
            gate = torch.sigmoid(self.gate(z))
            return (1 - gate) * z + gate * torch.tanh(self.proposal(z))

    class DeepMarkov(PyroModule):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.transition = Transition(2)
                self.emission = nn.Linear(2, 4)
                self.combiner = nn.Linear(4, 2)

        def model(self, x):
            pyro.module("deep", self)
            scale = pyro.sample("scale", dist.LogNormal(-1.0, 0.3))
            with pyro.plate("sequences", len(x)):
                z = x.new_zeros(len(x), 2)
                for t in pyro.markov(range(x.shape[1])):
                    mean = self.transition(z)
                    z = pyro.sample(f"z_{t}", dist.Normal(mean, scale.unsqueeze(-1)).to_event(1))
                    logits = self.emission(z)
                    pyro.sample(f"x_{t}", dist.Bernoulli(logits=logits).to_event(1), obs=x[:, t])

        def guide(self, x):
            pyro.module("deep", self)
            log_normal("scale", -1.0)
            with pyro.plate("sequences", len(x)):
                for t in pyro.markov(range(x.shape[1])):
                    loc = self.combiner(x[:, t])
                    pyro.sample(f"z_{t}", dist.Normal(loc, 0.5).to_event(1))

    net = DeepMarkov()
    return net.model, net.guide, (flips(3, 3, 4),)


@trial(
    "bnn-in-time pyrosample-weights autoregressive-features module-with-priors",
    {"net.hidden.weight": (3, 2), "net.out.weight": (1, 3), "sigma": ()},
    {"y": (7,)},
)
def autoregressive_network():
    class Net(PyroModule):
        """One hidden layer, its weights latent."""

        def __init__(self):
            super().__init__()
            self.hidden = PyroModule[nn.Linear](2, 3, bias=False)
            self.hidden.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
            self.out = PyroModule[nn.Linear](3, 1, bias=False)
            self.out.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))

        def forward(self, lags):
            return self.out(torch.tanh(self.hidden(lags))).squeeze(-1)

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, lags, y):
            mean = self.net(lags)
            sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
            with pyro.plate("time", len(y)):
                return pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    def lagged(series, order):
        columns = [series[order - 1 - i : len(series) - 1 - i] for i in range(order)]
        return torch.stack(columns, -1), series[order:]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model()
    guide = AutoDiagonalNormal(model, init_scale=0.05)
    series = torch.sin(torch.arange(9) * 0.7) + 0.1 * randn(9)
    lags, y = lagged(series, 2)
    assert lags.shape == (7, 2)
    return model, guide, (lags, y)


@trial(
    "changepoints switching-rates poisson-counts cumulative-steps relaxed-switch",
    {"rates": (3,), "times": (2,)},
    {"deaths": (10,)},
)
def smooth_changepoints():
    """Rates that change at two times, in order, by steps soft enough for gradients."""
    steepness = 4.0

    def rate_at(time, rates, times):
        """The rate at each time: the first, and the step of each change that lies behind."""
        ordered = torch.cumsum(times, -1)
        on = torch.sigmoid(steepness * (time.unsqueeze(-1) - 10 * ordered.unsqueeze(-2)))
        steps = rates[..., 1:] - rates[..., :-1]
        return rates[..., :1] + (on * steps.unsqueeze(-2)).sum(-1)

    def model(deaths):
        time = torch.arange(len(deaths)).to(torch.get_default_dtype())
        rates = pyro.sample("rates", dist.Gamma(2.0, 0.5).expand([3]).to_event(1))
        times = pyro.sample("times", dist.Beta(2.0, 4.0).expand([2]).to_event(1))
        with pyro.plate("years", len(deaths)):
            rate = rate_at(time, rates, times)
            pyro.sample("deaths", dist.Poisson(rate), obs=deaths)

    def guide(deaths):
        shape = pyro.param("shape", 4 * torch.ones(3), constraint=positive)
        speed = pyro.param("speed", torch.ones(3), constraint=positive)
        pyro.sample("rates", dist.Gamma(shape, speed).to_event(1))
        a = pyro.param("a", 3 * torch.ones(2), constraint=positive)
        b = pyro.param("b", 5 * torch.ones(2), constraint=positive)
        pyro.sample("times", dist.Beta(a, b).to_event(1))

    def eras():
        early, late = counts(5, rate=5.0), counts(5, rate=1.0, seed=1)
        return torch.cat([early, late])

    data = eras()
    assert rate_at(torch.arange(10.0), torch.ones(3), torch.full((2,), 0.3)).shape == (10,)
    return model, guide, (data,)
