"""Gaussian mixture, N rows, K = 10, d = 8: the peak memory of a whole ``cavi`` beyond the data.

    python benchmarks/cavi_memory.py [--rows 1000000]

Each fit runs in a process of its own, whose largest resident memory is read before and after.
"""

import argparse
import json
import subprocess
import sys

from cavi_timing import peak_megabytes, report


def measured(covariance, rows):
    """In a process of its own: megabytes with the data loaded, and at the peak of the fit."""
    import cavi_mixture
    import torch

    from vitools import Problem, cavi

    small = cavi_mixture.mixture_data(100)  # imports that the first fit needs
    model = getattr(cavi_mixture, covariance)
    cavi(Problem(model, small), max_sweeps=3)
    y = cavi_mixture.mixture_data(rows)
    before = peak_megabytes()
    fit = cavi(Problem(model, y), max_sweeps=10)
    data = y.numel() * y.element_size() / 2**20
    torch.testing.assert_close(fit.bound, fit.history.elbo[-1])
    print(json.dumps({"data": data, "before": before, "peak": peak_megabytes()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--covariance", choices=["diagonal", "full"])
    options = parser.parse_args()
    if options.covariance:
        measured(options.covariance, options.rows)
        return
    table = []
    for covariance in ("diagonal", "full"):
        command = [sys.executable, __file__, "--rows", str(options.rows), "--covariance"]
        done = subprocess.run([*command, covariance], check=True, capture_output=True, text=True)
        seen = json.loads(done.stdout.splitlines()[-1])
        table.append(
            {
                "covariance": covariance,
                "rows": options.rows,
                "data MB": seen["data"],
                "before the fit MB": seen["before"],
                "at the peak MB": seen["peak"],
                "beyond the data MB": seen["peak"] - seen["before"],
            }
        )
    report("cavi_memory", table)


if __name__ == "__main__":
    main()
