"""Two dice, N rows of 5 rolls: one pass collapses them to distinct rows, then N no longer matters.

    python benchmarks/cavi_two_dice.py [--rows 10000 1000000]

The time to build the ``Problem`` (the model is read and its data are checked), that of ``cavi()`` up to
convergence, and that of ``numpy.unique(axis=0)`` on the face counts, stand side by side.
"""

import argparse
import time

import numpy as np
import torch
from cavi_timing import report

from vitools import Problem, cavi
from vitools.models import two_dice


def simulate(rows):
    """Rolls drawn without going through Pyro, so that ten million take seconds."""
    generator = torch.Generator().manual_seed(0)
    rho = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(6), 6))
    total = torch.randint(3, (rows,), generator=generator)
    total += torch.randint(4, (rows,), generator=generator)
    uniform = torch.rand(rows, 5, generator=generator, dtype=torch.float64)
    edges = rho.cumsum(1)
    rolls = torch.zeros(rows, 5, dtype=torch.long)
    for face in range(5):
        rolls += uniform > edges[total, face].unsqueeze(1)
    return rolls


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 10_000, 1_000_000])
    table = []
    cavi(Problem(two_dice.model, simulate(10)))  # imports that the first fit needs
    for rows in parser.parse_args().rows:
        rolls = simulate(rows)
        counts = torch.zeros(rows, 6, dtype=torch.long)
        counts.scatter_add_(1, rolls, torch.ones_like(rolls))
        distinct, unique = timed(lambda counts=counts: np.unique(counts.numpy(), axis=0))
        problem, built = timed(lambda rolls=rolls: Problem(two_dice.model, rolls))
        for joint in ((), [("z1", "z2")]):
            fit, fitted = timed(lambda problem=problem, joint=joint: cavi(problem, joint=joint))
            first, *_, last = fit.history.seconds
            table.append(
                {
                    "rows": rows,
                    "factor": "q(z1, z2)" if joint else "q(z1) q(z2)",
                    "distinct rows": len(distinct),
                    "Problem s": built,
                    "cavi s": fitted,
                    "sweeps": len(fit.history),
                    "sweep ms": 1000 * (last - first) / (len(fit.history) - 1),
                    "status": fit.status.label,
                    "numpy.unique s": unique,
                }
            )
    report("cavi_two_dice", table)


def timed(function):
    start = time.perf_counter()
    return function(), time.perf_counter() - start


if __name__ == "__main__":
    main()
