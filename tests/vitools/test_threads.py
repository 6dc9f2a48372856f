"""Fits in several threads of one process are the fits of one thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyro.distributions as dist
import torch
from pyro import param, plate, sample

from vitools import Problem, cavi, laplace, nuts, svi
from vitools.diagnostics import judge
from vitools.guides import AutoMeanField
from vitools.isolation import alone, lazy

ZERO = torch.zeros((), dtype=torch.float64)


def location(y):
    mean = sample("mean", dist.Normal(ZERO, 2.0))
    with plate("rows", len(y)):
        sample("y", dist.Normal(mean, 1.0), obs=y)


def rate(counts):
    rate = sample("rate", dist.Gamma(ZERO + 2.0, 1.0))
    with plate("days", len(counts)):
        sample("counts", dist.Poisson(rate), obs=counts)


def line(x, y):
    scale = param("scale", ZERO + 1.0)
    slope = sample("slope", dist.Normal(ZERO, 3.0))
    with plate("points", len(y), subsample_size=2) as rows:
        sample("y", dist.Normal(slope * x[rows], scale), obs=y[rows])


def fit_location():
    return cavi(Problem(location, ZERO + torch.arange(4)))


def fit_rate():
    return laplace(Problem(rate, ZERO + torch.tensor([3.0, 1.0, 4.0])))


def fit_line():
    x = ZERO + torch.arange(5)
    return svi(Problem(line, x, 2 * x), AutoMeanField, max_steps=20, compile=False, seed=2)


def sample_location():
    problem = Problem(location, ZERO + torch.arange(3))
    return nuts(problem, num_samples=10, num_warmup=10, num_chains=1, sampler="pyro")


FITS = [fit_location, fit_line, fit_rate, sample_location]


def numbers(make):
    fit = make()
    found = [*fit.sample(3).values(), *fit.mean().values(), *judge(fit).draws.values()]
    return torch.cat([value.flatten() for value in found])


def test_who_is_alone_gets_what_another_thread_computes_and_waits_for():
    """Both ask for one property, whose computation wants to be alone."""

    class Asked:
        @lazy
        def answer(self):
            begun.set()
            with alone():
                return 42

    begun, asked = threading.Event(), Asked()
    with ThreadPoolExecutor(1) as pool:
        with alone():
            other = pool.submit(lambda: asked.answer)
            assert begun.wait(10)
            assert asked.answer == 42  # with a lock in the property neither would go on
        assert other.result(10) == 42


def test_four_threads_give_what_one_gives():
    expected = [numbers(make) for make in FITS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(numbers, FITS))
    for got, one in zip(found, expected, strict=True):
        torch.testing.assert_close(got, one, rtol=0, atol=0)
