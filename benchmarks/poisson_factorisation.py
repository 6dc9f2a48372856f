"""Poisson factorisation beside hpfrec: seconds a sweep, seconds to a bound, peak memory.

    python benchmarks/poisson_factorisation.py [--only ap|simulated]

The AP corpus (../shared/data/topic_ap) and 20 000 × 5000 counts of which two million are not zero,
simulated; 30 factors. Both sides fit the hierarchical model of Gopalan, Hofman and Blei (2015) in one
thread, each in a fresh process: θ ~ Gamma(a, ξ), ξ ~ Gamma(a', a'/b'), likewise β and η. The same bound
is taken of both fits by one function (`bound`).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from cavi_timing import peak_megabytes, report

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "topic_ap" / "bow.npz"
FACTORS, SHAPE, SCALE = 30, 0.3, 1.0
SWEEPS = {"ap": 30, "simulated": 10}


def counts(which):
    """Rows, columns and counts of what is not zero, in the order of rows; and the two sizes."""
    if which == "ap":
        return load_bag(np.load(DATA))
    rng = np.random.default_rng(0)
    users, items, wanted = 20_000, 5000, 2_000_000
    theta = rng.gamma(SHAPE, 1.0, (users, FACTORS))
    beta = rng.gamma(SHAPE, 1.0, (items, FACTORS))
    level = wanted / float(theta.sum(0) @ beta.sum(0))
    for _ in range(6):  # rates at which so many counts are not zero
        found = sum(
            float(-np.expm1(-level * theta[i : i + 1000] @ beta.T).sum())
            for i in range(0, users, 1000)
        )
        level *= wanted / found
    parts = []
    for first in range(0, users, 1000):
        y = rng.poisson(level * theta[first : first + 1000] @ beta.T)
        row, column = y.nonzero()
        parts.append((row + first, column, y[row, column]))
    return *(np.concatenate(part) for part in zip(*parts, strict=True)), users, items


def load_bag(file):
    rows = np.repeat(np.arange(len(file["indptr"]) - 1), np.diff(file["indptr"]))
    return rows, file["indices"], file["counts"], len(file["indptr"]) - 1, int(file["n_vocab"])


def bound(row, column, y, theta, beta, xi, eta):
    """The evidence bound of Gamma factors (shape, rate) of θ, β, ξ and η."""
    from scipy.special import digamma, gammaln

    def mean(q):
        return q[0] / q[1]

    def log(q):
        return digamma(q[0]) - np.log(q[1])

    def entropy(q):
        return (q[0] - np.log(q[1]) + gammaln(q[0]) + (1 - q[0]) * digamma(q[0])).sum()

    total = -float(mean(theta).sum(0) @ mean(beta).sum(0)) - gammaln(y + 1.0).sum()
    log_theta, log_beta = log(theta), log(beta)
    for first in range(0, len(y), 100_000):
        part = slice(first, first + 100_000)
        logs = log_theta[row[part]] + log_beta[column[part]]
        top = logs.max(-1)
        total += (y[part] * (top + np.log(np.exp(logs - top[:, None]).sum(-1)))).sum()
    for q, rate in ((theta, xi), (beta, eta)):
        n = q[0].shape[1]
        total += (SHAPE * log(rate) * n - n * gammaln(SHAPE)).sum() + entropy(q)
        total += ((SHAPE - 1) * log(q) - mean(rate)[:, None] * mean(q)).sum()
        total += entropy(rate)
        total += (
            SHAPE * np.log(SCALE) - gammaln(SHAPE) + (SHAPE - 1) * log(rate) - SCALE * mean(rate)
        ).sum()
    return float(total)


def by_vitools(row, column, y, users, items, sweeps):
    import pyro
    import pyro.distributions as dist
    import torch

    from vitools.calculus.model import ConjugateModel
    from vitools.calculus.start.initialise import initialise

    torch.set_num_threads(1)

    def model(row, column, y):
        gamma = dist.Gamma(torch.tensor(SHAPE).double(), torch.tensor(SCALE).double())
        with pyro.plate("users", users, dim=-2):
            xi = pyro.sample("xi", gamma)
        with pyro.plate("items", items, dim=-2):
            eta = pyro.sample("eta", gamma)
        with pyro.plate("factors", FACTORS, dim=-1):
            with pyro.plate("users", users, dim=-2):
                theta = pyro.sample("theta", dist.Gamma(SHAPE, xi))
            with pyro.plate("items", items, dim=-2):
                beta = pyro.sample("beta", dist.Gamma(SHAPE, eta))
        rate = (theta[row] * beta[column]).sum(-1)
        log_counts = (y * rate.log() - torch.lgamma(y + 1)).sum()
        pyro.factor("y", log_counts - (theta.sum(0) * beta.sum(0)).sum())

    data = [torch.as_tensor(x.astype(np.int64)) for x in (row, column)]
    conjugate = ConjugateModel(model, (*data, torch.as_tensor(y.astype(float))))
    initialise(conjugate, 0, from_data=False)
    start = time.perf_counter()
    for _ in range(sweeps):
        conjugate.sweep()
    seconds = time.perf_counter() - start
    q = {
        name: tuple(x.numpy() for x in (block.natural[0] + 1, -block.natural[1]))
        for block in conjugate.blocks
        for name in block.names
    }
    q = {
        name: tuple(x.squeeze(-1) for x in q[name]) if name in ("xi", "eta") else q[name]
        for name in q
    }
    own = conjugate.elbo()
    taken = bound(row, column, y, q["theta"], q["beta"], q["xi"], q["eta"])
    assert abs(own - taken) < 1e-6 * abs(own), (own, taken)
    return seconds, taken


def by_hpfrec(row, column, y, users, items, sweeps):
    import hpfrec
    import pandas as pd

    table = pd.DataFrame({"UserId": row, "ItemId": column, "Count": y.astype(float)})
    made = hpfrec.HPF(
        k=FACTORS, a=SHAPE, a_prime=SHAPE, b_prime=SHAPE / SCALE, c=SHAPE, c_prime=SHAPE,
        d_prime=SHAPE / SCALE, ncores=1, maxiter=sweeps, stop_crit="maxiter", check_every=sweeps,
        reindex=False, random_seed=1, use_float=False, verbose=False, keep_all_objs=True,
        full_llk=False, allow_inconsistent_math=False, save_folder=None, keep_data=False,
    )  # fmt: skip
    start = time.perf_counter()
    made.fit(table)
    seconds = time.perf_counter() - start
    n = FACTORS * SHAPE + SHAPE
    xi = np.full(users, n), np.asarray(made.k_rte, dtype=float).reshape(-1)
    eta = np.full(items, n), np.asarray(made.t_rte, dtype=float).reshape(-1)
    theta = np.asarray(made.Gamma_shp, dtype=float), np.asarray(made.Gamma_rte, dtype=float)
    beta = np.asarray(made.Lambda_shp, dtype=float), np.asarray(made.Lambda_rte, dtype=float)
    theta, beta = ((a, np.broadcast_to(b, a.shape)) for a, b in (theta, beta))
    return seconds, bound(row, column, y, theta, beta, xi, eta)


WAYS = {"vitools": by_vitools, "hpfrec": by_hpfrec}


def measured(which, way):
    data = counts(which)
    before = peak_megabytes()
    seconds, reached = WAYS[way](*data, SWEEPS[which])
    print(
        json.dumps(
            {
                "data": which,
                "not zero": len(data[2]),
                "by": way,
                "sweeps": SWEEPS[which],
                "seconds": seconds,
                "bound": reached,
                "with the data MB": before,
                "at the peak MB": peak_megabytes(),
            }
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(SWEEPS))
    parser.add_argument("--way", choices=list(WAYS))
    options = parser.parse_args()
    if options.way:
        measured(options.only, options.way)
        return
    table = []
    for which in [options.only] if options.only else SWEEPS:
        for way in WAYS:
            command = [sys.executable, __file__, "--only", which, "--way", way]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            table.append(json.loads(done.stdout.splitlines()[-1]))
    report("poisson_factorisation", table)


if __name__ == "__main__":
    main()
