"""The file ``m.py`` of :mod:`bad_inputs`: models and guides with something wrong with them."""

MODELS = """
import pyro
import pyro.distributions as dist
import torch

count = 0


def coin(heads):
    p = pyro.sample("p", dist.Beta(heads.new_ones(()), 1.0))
    with pyro.plate("flips", len(heads)):
        pyro.sample("obs", dist.Bernoulli(p), obs=heads)


def line(x, y, scale=1.0):
    slope = pyro.sample("slope", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("obs", dist.Normal(slope * x, scale), obs=y)


def faces(face):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rows", len(face)):
        pyro.sample("obs", dist.Categorical(p), obs=face)


def counts(n):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(n)):
        pyro.sample("obs", dist.Poisson(rate), obs=n)


def waits(t):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(t)):
        pyro.sample("obs", dist.Exponential(rate), obs=t)


def shares(s):
    with pyro.plate("rows", len(s)):
        pyro.sample("obs", dist.Dirichlet(torch.ones(3)), obs=s)
    pyro.sample("mu", dist.Normal(0.0, 1.0))


def no_data_seen(y):
    pyro.sample("mu", dist.Normal(0.0, 1.0))


def no_latent(y):
    with pyro.plate("rows", len(y)):
        pyro.sample("obs", dist.Normal(0.0, 1.0), obs=y)


def no_sites(y):
    return y.sum()


def twice(y):
    for _ in range(2):
        pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("obs", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1), obs=y)


def restless(y):
    global count
    count += 1
    pyro.sample("mu", dist.Normal(torch.zeros(count), 1.0).to_event(1))
    pyro.sample("obs", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1), obs=y)


def unbounded_latent(y):
    n = pyro.sample("n", dist.Poisson(3.0))
    pyro.sample("obs", dist.Normal(n, 1.0).expand([len(y)]).to_event(1), obs=y)


def negative_scale(y):
    pyro.sample("mu", dist.Normal(0.0, -1.0))
    pyro.sample("obs", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1), obs=y)


def wrong_length(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 2):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


def missing_plate(y):
    with pyro.plate("rows", len(y)):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("obs", dist.Normal(mu.sum(), 1.0).expand([2]), obs=y)


def listed(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("obs", dist.Normal(mu, 1.0), obs=[1.0, 2.0])


def raises(y):
    raise ValueError("the reader is asleep")


def wrong_key(y):
    return {}["prior"]


def broken_multiply(y):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(7), 1.0).to_event(1))
    pyro.sample("obs", dist.Normal(y @ weights, 1.0), obs=y)


def not_a_distribution(y):
    pyro.sample("mu", torch.zeros(3))
    pyro.sample("obs", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1), obs=y)


def lost(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("obs", dist.Normal(mu, 1.0), obs=torch.tensor(float("nan")))


number = 3


# guides of coin, whose only latent is p


def guide_of_another(heads):
    pyro.sample("q", dist.Beta(2.0, 2.0))


def guide_of_too_much(heads):
    pyro.sample("p", dist.Beta(2.0, 2.0))
    pyro.sample("extra", dist.Normal(0.0, 1.0))


def guide_outside(heads):
    pyro.sample("p", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))


def guide_of_another_shape(heads):
    pyro.sample("p", dist.Beta(torch.ones(2), 2.0).to_event(1))


def guide_of_other_arguments(tails):
    pyro.sample("p", dist.Beta(2.0, 2.0))


def guide_that_raises(heads):
    raise RuntimeError("no guide today")


def guide_of_nothing(heads):
    pass


class GuideThatNeedsMore:
    def __init__(self, model, depth):
        pass
"""
