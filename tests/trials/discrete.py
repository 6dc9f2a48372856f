"""Mixtures, hidden Markov models and other models with discrete latents."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.ops.indexing import Vindex
from trial import counts, flips, randn, trial

positive = constraints.positive


@trial(
    "mixture enumeration-parallel block-guide",
    {"weights": (2,), "locs": (2,), "assignment": (8,)},
    {"x": (8,)},
    is_quick=True,
)
def gaussian_mixture():
    @config_enumerate
    def model(x):
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            assignment = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[assignment], 1.0), obs=x)

    guide = AutoNormal(poutine.block(model, expose=["weights", "locs"]))
    return model, guide, (torch.cat([randn(4) - 3, randn(4, seed=1) + 3]),)


@trial(
    "mixture masked-mixture zero-inflated no-discrete-latent",
    {"gate": (), "rate": ()},
    {"x": (12,)},
)
def zero_inflated_counts():
    def model(x):
        gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.ZeroInflatedPoisson(rate, gate=gate), obs=x)

    def guide(x):
        a = pyro.param("a", 2 * torch.ones(2), constraint=positive)
        pyro.sample("gate", dist.Beta(a[0], a[1]))
        loc = pyro.param("loc", torch.tensor(0.5))
        pyro.sample(
            "rate", dist.LogNormal(loc, pyro.param("s", torch.tensor(0.2), constraint=positive))
        )

    x = counts(12)
    x[::3] = 0
    return model, guide, (x,)


@trial(
    "hmm markov enumeration-parallel sequential-data",
    {"transition": (2, 2), "emission": (2,), **{f"z_{t}": () for t in range(4)}},
    {f"x_{t}": () for t in range(4)},
)
def hidden_markov():
    @config_enumerate
    def model(x):
        with pyro.plate("states", 2):
            transition = pyro.sample("transition", dist.Dirichlet(torch.ones(2)))
            emission = pyro.sample("emission", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0))
        z = torch.tensor(0)
        for t in pyro.markov(range(len(x))):
            z = pyro.sample(f"z_{t}", dist.Categorical(transition[z]))
            pyro.sample(f"x_{t}", dist.Normal(emission[z], 0.5), obs=x[t])

    guide = AutoNormal(poutine.block(model, expose=["transition", "emission"]))
    return model, guide, (torch.tensor([-1.0, -0.8, 1.1, 0.9]),)


@trial(
    "hmm markov plate-of-sequences vindex ragged mask",
    {"probs_x": (2, 2), "probs_y": (2,), **{f"x_{t}": (3, 1) for t in range(3)}},
    {f"y_{t}": (3, 1) for t in range(3)},
)
def ragged_hidden_markov():
    @config_enumerate
    def model(sequences, lengths):
        probs_x = pyro.sample("probs_x", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
        probs_y = pyro.sample("probs_y", dist.Beta(torch.ones(2), torch.ones(2)).to_event(1))
        with pyro.plate("sequences", 3, dim=-2):
            x = torch.tensor(0)
            for t in pyro.markov(range(sequences.shape[1])):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    x = pyro.sample(f"x_{t}", dist.Categorical(Vindex(probs_x)[x]))
                    p = Vindex(probs_y)[x]
                    pyro.sample(f"y_{t}", dist.Bernoulli(p), obs=sequences[:, t].unsqueeze(-1))

    guide = AutoNormal(poutine.block(model, expose=["probs_x", "probs_y"]))
    return model, guide, (flips(3, 3), torch.tensor([3, 2, 1]))


@trial(
    "changepoint discrete-global int-of-data",
    {"before": (), "after": (), "when": ()},
    {"x": (9,)},
)
def coal_changepoint():
    def model(x):
        before = pyro.sample("before", dist.Gamma(2.0, 1.0))
        after = pyro.sample("after", dist.Gamma(2.0, 1.0))
        years = int(x.shape[0])
        when = pyro.sample("when", dist.Categorical(torch.ones(years)))
        with pyro.plate("years", years):
            rate = torch.where(torch.arange(years) < when, before, after)
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x):
        a = pyro.param("a", 4 * torch.ones(2), constraint=positive)
        pyro.sample("before", dist.Gamma(a[0], 2.0))
        pyro.sample("after", dist.Gamma(a[1], 2.0))

    return model, guide, (counts(9),)


@trial(
    "capture-recapture binary-latents guide-draws-discrete score-function",
    {"p": (), "alive": (6,)},
    {"seen": (6,)},
)
def drawn_discrete():
    def model(seen):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        with pyro.plate("animals", len(seen)):
            alive = pyro.sample("alive", dist.Bernoulli(0.7))
            pyro.sample("seen", dist.Bernoulli(0.01 + 0.98 * p * alive), obs=seen)

    def guide(seen):
        a = pyro.param("a", 2 * torch.ones(2), constraint=positive)
        pyro.sample("p", dist.Beta(a[0], a[1]))
        with pyro.plate("animals", len(seen)):
            q = pyro.param("q", 0.5 * torch.ones(6), constraint=constraints.unit_interval)
            pyro.sample("alive", dist.Bernoulli(q))

    return model, guide, (flips(6),)


@trial(
    "topics nested-plates categorical-observations max-of-data",
    {"topics": (2, 5), "mix": (3, 2), "topic": (4, 3)},
    {"word": (4, 3)},
)
def latent_dirichlet():
    def model(words):
        vocabulary = int(words.max()) + 1
        with pyro.plate("topic_rows", 2):
            topics = pyro.sample("topics", dist.Dirichlet(torch.ones(vocabulary)))
        with pyro.plate("documents", words.shape[1]):
            mix = pyro.sample("mix", dist.Dirichlet(torch.ones(2)))
            with pyro.plate("positions", words.shape[0]):
                topic = pyro.sample("topic", dist.Categorical(mix))
                pyro.sample("word", dist.Categorical(topics[topic]), obs=words)

    def guide(words):
        a = pyro.param("a", torch.ones(2, 5), constraint=positive)
        with pyro.plate("topic_rows", 2):
            pyro.sample("topics", dist.Dirichlet(a))
        b = pyro.param("b", torch.ones(3, 2), constraint=positive)
        with pyro.plate("documents", words.shape[1]):
            pyro.sample("mix", dist.Dirichlet(b))

    words = torch.arange(12).reshape(4, 3) % 5
    return model, guide, (words,)


@trial(
    "stick-breaking dirichlet-process param-in-guide",
    {"beta": (2,), "mu": (3,), "z": (7,)},
    {"x": (7,)},
)
def dirichlet_process():
    def weights(beta):
        left = (1 - beta).cumprod(-1)
        one = torch.ones_like(beta[..., :1])
        return torch.cat([beta, one], -1) * torch.cat([one, left], -1)

    def model(x):
        with pyro.plate("beta_plate", 2):
            beta = pyro.sample("beta", dist.Beta(1.0, 1.0))
        with pyro.plate("mu_plate", 3):
            mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights(beta)))
            pyro.sample("x", dist.Normal(mu[z], 0.5), obs=x)

    def guide(x):
        kappa = pyro.param("kappa", lambda: torch.ones(2), constraint=positive)
        tau = pyro.param("tau", lambda: torch.tensor([-1.0, 0.0, 1.0]))
        with pyro.plate("beta_plate", 2):
            pyro.sample("beta", dist.Beta(torch.ones(2), kappa))
        with pyro.plate("mu_plate", 3):
            pyro.sample("mu", dist.Normal(tau, 0.3))

    return model, guide, (randn(7),)


@trial(
    "annotators dawid-skene crossed enumeration",
    {"pi": (2,), "beta": (2, 2, 2), "c": (5,)},
    {"y": (2, 5)},
)
def annotators():
    def model(y):
        pi = pyro.sample("pi", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("annotator_rows", 2, dim=-2), pyro.plate("classes", 2, dim=-1):
            beta = pyro.sample("beta", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("items", 5, dim=-1):
            c = pyro.sample("c", dist.Categorical(pi))
            with pyro.plate("annotators", 2, dim=-2):
                who = torch.arange(2).unsqueeze(-1)
                pyro.sample("y", dist.Categorical(Vindex(beta)[who, c, :]), obs=y)

    return model, AutoNormal(poutine.block(model, expose=["pi", "beta"])), (flips(2, 5).long(),)


@trial(
    "discrete-only evidence",
    {"disease": (), "smoker": ()},
    {"cough": ()},
    refused={"automatic_guide": "no continuous latent", "nuts": "only discrete latents"},
)
def diagnosis():
    def model(cough):
        smoker = pyro.sample("smoker", dist.Bernoulli(0.3))
        disease = pyro.sample("disease", dist.Bernoulli(0.1 + 0.4 * smoker))
        pyro.sample("cough", dist.Bernoulli(0.2 + 0.7 * disease), obs=cough)

    def guide(cough):
        q = pyro.param("q", torch.full((2,), 0.5), constraint=constraints.unit_interval)
        pyro.sample("smoker", dist.Bernoulli(q[0]))
        pyro.sample("disease", dist.Bernoulli(q[1]))

    return model, guide, (torch.tensor(1.0),)


@trial(
    "poisson-latent unlisted-discrete refused-nuts",
    {"n": (), "p": ()},
    {"k": (3,)},
    refused={"automatic_guide": "cannot be enumerated", "nuts": "cannot be listed"},
)
def unlisted_count():
    def model(k):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        n = pyro.sample("n", dist.Poisson(10.0))
        with pyro.plate("visits", len(k)):
            pyro.sample("k", dist.Poisson(0.1 + n * p), obs=k)

    def guide(k):
        a = pyro.param("a", 2 * torch.ones(2), constraint=positive)
        pyro.sample("p", dist.Beta(a[0], a[1]))
        pyro.sample("n", dist.Poisson(pyro.param("rate", torch.tensor(10.0), constraint=positive)))

    return model, guide, (torch.tensor([4.0, 5.0, 3.0]),)
