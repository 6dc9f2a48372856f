"""Probabilistic matrix factorisation: 6000 users, 4000 items, a million ratings, 10 factors.

    python benchmarks/matrix_factorisation.py [--ratings 1000000]

Seconds a sweep of coordinate ascent (the bound included, the median of five) and the peak memory of a
fresh process, by products with sparse matrices and with every rating's statistics written out beside it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from cavi_timing import peak_megabytes, report

USERS, ITEMS, FACTORS, SWEEPS = 6000, 4000, 10, 5


def data(ratings):
    import torch

    g = torch.Generator().manual_seed(0)
    user = torch.randint(0, USERS, (ratings,), generator=g)
    item = torch.randint(0, ITEMS, (ratings,), generator=g)
    u = torch.randn(USERS, FACTORS, generator=g)
    v = torch.randn(ITEMS, FACTORS, generator=g)
    noise = 0.5 * torch.randn(ratings, generator=g)
    return user, item, ((u[user] * v[item]).sum(-1) + noise).double()


def model(user, item, y):
    import pyro
    import pyro.distributions as dist
    import torch

    prior = dist.MultivariateNormal(torch.zeros(FACTORS), torch.eye(FACTORS))
    tau = pyro.sample("tau", dist.Gamma(1.0, 1.0))
    with pyro.plate("users", USERS):
        u = pyro.sample("u", prior)
    with pyro.plate("items", ITEMS):
        v = pyro.sample("v", prior)
    with pyro.plate("ratings", len(y)):
        pyro.sample("y", dist.Normal((u[user] * v[item]).sum(-1), tau.rsqrt()), obs=y)


def measured(way, ratings):
    import torch

    import vitools.calculus.reduction.contraction as contraction
    from vitools.calculus.model import ConjugateModel
    from vitools.calculus.start.initialise import initialise

    torch.set_num_threads(1)
    if way == "written out":
        contraction.read_together = lambda *_: False
    conjugate = ConjugateModel(model, data(ratings))
    before = peak_megabytes()
    initialise(conjugate, 0, from_data=False)
    seconds, bound = [], 0.0
    for _ in range(SWEEPS):
        start = time.perf_counter()
        conjugate.sweep()
        bound = conjugate.elbo()
        seconds.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "messages": way,
                "ratings": ratings,
                "seconds a sweep": statistics.median(seconds),
                "bound": bound,
                "with the data MB": before,
                "at the peak MB": peak_megabytes(),
            }
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=int, default=1_000_000)
    parser.add_argument("--way", choices=["written out", "sparse"])
    options = parser.parse_args()
    if options.way:
        measured(options.way, options.ratings)
        return
    table = []
    for way in ("written out", "sparse"):
        command = [sys.executable, __file__, "--ratings", str(options.ratings), "--way", way]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        table.append(json.loads(done.stdout.splitlines()[-1]))
    report("matrix_factorisation", table)


if __name__ == "__main__":
    main()
