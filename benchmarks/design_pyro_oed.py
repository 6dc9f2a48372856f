"""Expected information gain beside ``pyro.contrib.oed``: the same optimum, error and processor seconds.

Three experiments with 9 candidates each: a linear model of one measurement, an A/B test of 10 people in two
groups, the time at which a damped oscillator is looked at. Truth is a closed form for the first two and a sum
over a fine grid for the third. Pyro's ``nmc_eig`` (N = M = 500) and our ``nested``, ``contrastive`` (n = 500)
are each repeated with eight seeds; ``grid`` where it applies and ``laplace`` where it is exact (linear models)
take no draws. Errors are root mean squares over seeds and
candidates, seconds are of the processor for all candidates. The last column is what an error of 0.01 nats
would cost, if squared errors fall as seconds rise: a Monte Carlo error, that is, and no figure where nothing is drawn.

    python benchmarks/design_pyro_oed.py
"""

import math
import time

import pyro
import pyro.distributions as dist
import torch
from cavi_timing import report
from design_sequential import NOISE, position
from pyro.contrib.oed.eig import nmc_eig

from vitools import expected_information_gain
from vitools.isolation import seeded

torch.set_default_dtype(torch.float64)
REPEATS, SAMPLES, WANTED = 8, 500, 0.01
GROUPS = torch.arange(1.0, 10.0)  # people in group A, of 10
PLACES = torch.linspace(-1.0, 1.0, 9)
TIMES = torch.linspace(0.5, 6.5, 9)


def line(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), torch.tensor([1.0, 2.0])).to_event(1))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(w[0] + w[1] * x, 0.5), obs=y)


def line_of_pyro(design):
    w = pyro.sample(
        "w", dist.Normal(torch.zeros(*design.shape, 2), torch.tensor([1.0, 2.0])).to_event(1)
    )
    pyro.sample("y", dist.Normal(w[..., 0] + w[..., 1] * design, 0.5))


def line_truth():
    return 0.5 * torch.log1p((1 + 4 * PLACES**2) / 0.25)


def design_of(count):
    """Rows of the design matrix: 10 people, the first so many in group A."""
    first = (torch.arange(10.0) < count.unsqueeze(-1)).to(torch.get_default_dtype())
    return torch.stack([first, 1 - first], -1)


def ab_test(count, y=None):
    effects = pyro.sample(
        "effects", dist.Normal(torch.zeros(2), torch.tensor([2.0, 0.5])).to_event(1)
    )
    with pyro.plate("measurements", len(count)):
        mean = design_of(count) @ effects
        pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)


def ab_test_of_pyro(design):
    spread = torch.tensor([2.0, 0.5])
    effects = pyro.sample("effects", dist.Normal(torch.zeros(*design.shape, 2), spread).to_event(1))
    mean = (design_of(design) @ effects.unsqueeze(-1)).squeeze(-1)
    pyro.sample("y", dist.Normal(mean, 1.0).to_event(1))


def ab_truth():
    return 0.5 * (torch.log1p(4 * GROUPS) + torch.log1p(0.25 * (10 - GROUPS)))


def oscillator(t, y=None):
    omega = pyro.sample("omega", dist.Uniform(1.0, 5.0))
    gamma = pyro.sample("gamma", dist.Uniform(0.05, 0.5))
    with pyro.plate("measurements", len(t)):
        pyro.sample("y", dist.Normal(position(t, omega, gamma), NOISE), obs=y)


def oscillator_of_pyro(design):
    ones = torch.ones(design.shape)
    omega = pyro.sample("omega", dist.Uniform(ones, 5 * ones))
    gamma = pyro.sample("gamma", dist.Uniform(0.05 * ones, 0.5 * ones))
    pyro.sample("y", dist.Normal(position(design, omega, gamma), NOISE))


def oscillator_truth():
    omega = (1 + 4 * (torch.arange(800) + 0.5) / 800).unsqueeze(1)
    gamma = (0.05 + 0.45 * (torch.arange(60) + 0.5) / 60).unsqueeze(0)
    y = torch.linspace(-1.8, 1.8, 1201)
    gains = []
    for t in TIMES:
        q = position(t, omega, gamma)
        density = torch.stack([dist.Normal(q, NOISE).log_prob(v).exp().mean() for v in y])
        entropy = torch.trapezoid(-torch.special.xlogy(density, density), y)
        gains.append(entropy - 0.5 * math.log(2 * math.pi * math.e * NOISE**2))
    return torch.stack(gains)


EXPERIMENTS = {
    "line": (line, line_of_pyro, PLACES, line_truth, ["w"], True, True),
    "A/B test": (ab_test, ab_test_of_pyro, GROUPS, ab_truth, ["effects"], False, True),
    "oscillator": (
        oscillator,
        oscillator_of_pyro,
        TIMES,
        oscillator_truth,
        ["omega", "gamma"],
        True,
        False,
    ),
}


def measured(estimate, truth, repeats):
    began = time.process_time()
    found = torch.stack([estimate(seed) for seed in range(repeats)])
    seconds = (time.process_time() - began) / repeats
    error = float((found - truth).square().mean().sqrt())
    best = int(truth.argmax())
    # a tie (the line's two ends) is as good
    right = float((truth[found.argmax(1)] > truth[best] - 1e-9).double().mean())
    return {
        "error": error,
        "bias": float((found.mean(0) - truth).mean()),
        "best_found": right,
        "seconds": seconds,
    }


def main():
    rows = []
    for name, (ours, theirs, designs, truth_of, targets, on_grid, is_linear) in EXPERIMENTS.items():
        truth = truth_of()

        def by_pyro(seed, theirs=theirs, designs=designs, targets=targets):
            with seeded(seed):
                return nmc_eig(theirs, designs, ["y"], targets, N=SAMPLES, M=SAMPLES)

        rows.append(
            {"experiment": name, "method": "pyro nmc_eig", **measured(by_pyro, truth, REPEATS)}
        )
        exactly = [m for m, can in (("grid", on_grid), ("laplace", is_linear)) if can]
        for method in ("nested", "contrastive", *exactly):

            def by_us(seed, method=method, ours=ours, designs=designs):
                return expected_information_gain(
                    ours, designs, method=method, num_samples=SAMPLES, seed=seed
                ).values

            repeats = 1 if method in exactly else REPEATS
            rows.append({"experiment": name, "method": method, **measured(by_us, truth, repeats)})
        for row in rows:
            if row["method"] not in ("grid", "laplace"):
                row["seconds_at_0.01"] = row["seconds"] * (row["error"] / WANTED) ** 2
        print(rows[-1], flush=True)
    report("design_pyro_oed", rows)


if __name__ == "__main__":
    main()
