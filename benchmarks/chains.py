"""Seconds a sweep of coordinate ascent for states over time, by length, in this process's CPU time.

    OMP_NUM_THREADS=1 python benchmarks/chains.py [longest]

A local level with unknown scales beside a coefficient, and a hidden Markov model of two states with unknown
levels, noise and transitions. Reading the model is counted apart. Where they are installed, beside them in
the same process: BayesPy on the same two models (its chain has the same prior and factors), and hmmlearn's
variational hidden Markov model, whose priors are its own. Each figure is the least of some sweeps; of
hmmlearn, which makes them inside one call, the mean of fifty.
"""

import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.distributions import CategoricalMarkovChain, GaussianMarkovChain

LENGTHS = (100, 1000, 10_000, 100_000)
SWEEPS = 10
MOST_BESIDE = 10_000  # steps of the others, which take minutes beyond
RESULT = Path(__file__).parent / "results" / "chains.json"


def local_level(y, control):
    drift = pyro.sample("drift", dist.Gamma(1.0, 0.01))
    noise = pyro.sample("noise", dist.Gamma(1.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
    chain = GaussianMarkovChain(torch.zeros(1), 10.0, drift.rsqrt().reshape(1), num_steps=len(y))
    x = pyro.sample("x", chain)
    with pyro.plate("t", len(y)):
        pyro.sample("y", dist.Normal(x[:, 0] + slope * control, noise.rsqrt()), obs=y)


def hidden_markov(y):
    level = pyro.sample("level", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    noise = pyro.sample("noise", dist.Gamma(1.0, 1.0))
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    half = torch.full((2,), 0.5)
    z = pyro.sample("z", CategoricalMarkovChain(half, jump, num_steps=len(y)))
    with pyro.plate("t", len(y)):
        pyro.sample("y", dist.Normal(level[z], noise.rsqrt()), obs=y)


def walk_data(steps):
    control = torch.randn(steps)
    walk = torch.cumsum(0.1 * torch.randn(steps), 0)
    return walk + 0.7 * control + 0.4 * torch.randn(steps), control


def regime_data(steps):
    stay = torch.tensor([[0.95, 0.05], [0.1, 0.9]])
    z = CategoricalMarkovChain(torch.tensor([0.5, 0.5]), stay, num_steps=steps).sample()
    return (torch.tensor([-1.0, 1.5])[z] + 0.7 * torch.randn(steps),)


MODELS = {"local level": (local_level, walk_data), "hidden Markov": (hidden_markov, regime_data)}


def measured(model, data):
    """CPU seconds to read the model, and a sweep with its bound (the least of some)."""
    began = time.process_time()
    conjugate = ConjugateModel(model, data)
    read = time.process_time() - began
    initialise(conjugate, 0)
    times = []
    for _ in range(SWEEPS):
        began = time.process_time()
        conjugate.sweep()
        conjugate.elbo()
        times.append(time.process_time() - began)
    return {"read": round(read, 4), "sweep": round(min(times), 4)}


def least(step: Callable[[], object], sweeps: int) -> float:
    times = []
    for _ in range(sweeps):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return round(min(times), 4)


def local_level_by_bayespy(y, control):
    from bayespy import inference, nodes

    drift, noise = nodes.Gamma(1, 0.01, plates=(1,)), nodes.Gamma(1, 1)
    slope = nodes.GaussianARD(0, 0.01)
    x = nodes.GaussianMarkovChain([0.0], [[0.01]], [[1.0]], drift, n=len(y))
    level = nodes.SumMultiply("i,i", [1.0], x)
    seen = nodes.GaussianARD(nodes.Add(level, nodes.SumMultiply(",", slope, control)), noise)
    seen.observe(y)
    return inference.VB(seen, x, slope, noise, drift)


def hidden_markov_by_bayespy(y):
    from bayespy import inference, nodes

    jump = nodes.Dirichlet(np.ones((2, 2)))
    z = nodes.CategoricalMarkovChain([0.5, 0.5], jump, states=len(y))
    level, noise = nodes.GaussianARD(0, 1 / 9, plates=(2,)), nodes.Gamma(1, 1)
    seen = nodes.Mixture(z, nodes.GaussianARD, level, noise)
    seen.observe(y)
    level.initialize_from_value(np.array([-1.0, 1.5]))
    return inference.VB(seen, z, level, noise, jump)


def by_bayespy(make, data):
    """CPU seconds of an iteration with its bound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BayesPy's calls of NumPy are of an older one
        q = make(*(x.numpy() for x in data))
        return least(lambda: q.update(repeat=1, verbose=False), 4)


def by_hmmlearn(data, few=5, many=55):
    """CPU seconds of an iteration of its variational hidden Markov model, its start taken off."""
    from hmmlearn.vhmm import VariationalGaussianHMM

    seconds = []
    for sweeps in (few, many):
        model = VariationalGaussianHMM(
            2, n_iter=sweeps, tol=-np.inf, implementation="scaling", random_state=0
        )
        began = time.process_time()
        model.fit(data[0].numpy()[:, None])
        seconds.append(time.process_time() - began)
    return round((seconds[1] - seconds[0]) / (many - few), 4)


BY_BAYESPY = {"local level": local_level_by_bayespy, "hidden Markov": hidden_markov_by_bayespy}


def beside(name, data):
    """Seconds of the others that are installed."""
    found = {}
    if importlib.util.find_spec("bayespy"):
        found["BayesPy sweep"] = by_bayespy(BY_BAYESPY[name], data)
    if name == "hidden Markov" and importlib.util.find_spec("hmmlearn"):
        found["hmmlearn sweep"] = by_hmmlearn(data)
    return found


def main(longest=LENGTHS[-1]):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    ConjugateModel(local_level, walk_data(10))  # what is loaded once
    found = {}
    for name, (model, data) in MODELS.items():
        for steps in (n for n in LENGTHS if n <= longest):
            made = data(steps)
            row = found[f"{name}, {steps}"] = measured(model, made)
            if steps <= MOST_BESIDE:
                row |= beside(name, made)
            print(f"{name:>14} {steps:>7} steps:", row, flush=True)
    return found


if __name__ == "__main__":
    rows = main(*(int(x) for x in sys.argv[1:]))
    if len(sys.argv) == 1:
        RESULT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
