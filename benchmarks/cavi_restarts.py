"""Twenty restarts as one batch against the same one after another.

    python benchmarks/cavi_restarts.py [--restarts 20]

Both give the same bounds; memory decides which is done (``vitools.engines.cavi.batch``).
"""

import argparse

from cavi_mixture import diagonal, mixture_data
from cavi_timing import median_seconds, report

from vitools import Problem, cavi
from vitools.engines.cavi import batch
from vitools.models import two_dice


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=20)
    restarts = parser.parse_args().restarts
    rolls = two_dice.simulate(num_rows=500, seed=0).rolls
    cases = {
        "two dice, 500 rows, q(z1) q(z2)": (Problem(two_dice.model, rolls), {}),
        "two dice, 500 rows, q(z1, z2)": (
            Problem(two_dice.model, rolls),
            {"joint": [("z1", "z2")]},
        ),
        "mixture, 1000 rows, K=10, d=8": (Problem(diagonal, mixture_data(1000)), {}),
    }
    table = []
    roomy = batch.BATCH_BYTES
    for name, (problem, options) in cases.items():
        fits = {}

        def fit(limit, problem=problem, options=options, fits=fits):
            batch.BATCH_BYTES = limit
            fits[limit] = cavi(problem, restarts=restarts, **options)

        together = median_seconds(lambda fit=fit: fit(roomy))
        apart = median_seconds(lambda fit=fit: fit(1))
        pairs = zip(fits[roomy].restart_bounds, fits[1].restart_bounds, strict=True)
        table.append(
            {
                "problem": name,
                "restarts": restarts,
                "one batch s": together,
                "one after another s": apart,
                "ratio": apart / together,
                "largest relative difference": max(abs(a / b - 1) for a, b in pairs),
            }
        )
    batch.BATCH_BYTES = roomy
    report("cavi_restarts", table)


if __name__ == "__main__":
    main()
