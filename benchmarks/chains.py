"""Seconds a sweep of coordinate ascent for states over time, by length, in this process's CPU time.

    python benchmarks/chains.py [longest]

A local level with unknown scales beside a coefficient, and a hidden Markov model of two states with unknown
levels, noise and transitions. Reading the model is counted apart.
"""

import json
import sys
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.distributions import CategoricalMarkovChain, GaussianMarkovChain

LENGTHS = (100, 1000, 10_000, 100_000)
SWEEPS = 10
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


def main(longest=LENGTHS[-1]):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    ConjugateModel(local_level, walk_data(10))  # what is loaded once
    found = {}
    for name, (model, data) in MODELS.items():
        for steps in (n for n in LENGTHS if n <= longest):
            row = found[f"{name}, {steps}"] = measured(model, data(steps))
            print(
                f"{name:>14} {steps:>7} steps: {row['sweep']:.4f} s a sweep, read in {row['read']:.3f} s"
            )
    return found


if __name__ == "__main__":
    rows = main(*(int(x) for x in sys.argv[1:]))
    if len(sys.argv) == 1:
        RESULT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
