"""Two dice, N rows of 5 rolls: one pass collapses them to distinct rows, then N no longer matters.

    python benchmarks/cavi_two_dice.py [--rows 10000 1000000]

Compared with ``numpy.unique(axis=0)`` on the face counts.
"""

import argparse
import time

import numpy as np
import torch
from cavi_timing import median_seconds, report

from vitools.conjugacy import ConjugateModel
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
    ConjugateModel(two_dice.model, (simulate(10),))  # imports that the first trace needs
    for rows in parser.parse_args().rows:
        rolls = simulate(rows)
        counts = torch.zeros(rows, 6, dtype=torch.long)
        counts.scatter_add_(1, rolls, torch.ones_like(rolls))
        start = time.perf_counter()
        np.unique(counts.numpy(), axis=0)
        unique = time.perf_counter() - start
        for joint in ((), [("z1", "z2")]):
            start = time.perf_counter()
            model = ConjugateModel(two_dice.model, (rolls,), joint=joint)
            built = time.perf_counter() - start
            model.initialise(0)

            def sweeps(model=model):
                for _ in range(100):
                    model.sweep()
                    model.elbo()

            sweep = median_seconds(sweeps) / 100
            table.append(
                {
                    "rows": rows,
                    "factor": "q(z1, z2)" if joint else "q(z1) q(z2)",
                    "distinct rows": len(model.rows["rows"].multiplicity) if model.rows else rows,
                    "first pass s": built,
                    "sweep and bound ms": 1000 * sweep,
                    "pass + 300 sweeps s": built + 300 * sweep,
                    "numpy.unique s": unique,
                }
            )
    report("cavi_two_dice", table)


if __name__ == "__main__":
    main()
