"""Gaussian mixture, full covariances, K = 10, d = 8: a sweep against BayesPy's, of the same model.

    python benchmarks/cavi_bayespy.py [--rows 100000]

BayesPy stores a message of K·d² numbers for each row (5 GB at a million rows), hence fewer rows.
"""

import argparse
import warnings

import numpy as np
from cavi_mixture import D, K, full, mixture_data
from cavi_timing import median_seconds, report

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from bayespy import nodes
    from bayespy.inference import VB


def theirs(y):
    weights = nodes.Dirichlet(np.ones(K), name="weights")
    z = nodes.Categorical(weights, plates=(len(y),), name="z")
    mean = nodes.Gaussian(np.zeros(D), 0.01 * np.eye(D), plates=(K,), name="mean")
    precision = nodes.Wishart(D + 2, np.eye(D), plates=(K,), name="precision")
    observed = nodes.Mixture(z, nodes.Gaussian, mean, precision, name="y")
    observed.observe(y)
    mean.initialize_from_random()
    return VB(observed, z, mean, precision, weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    y = mixture_data(rows)
    ours = ConjugateModel(full, (y,))
    initialise(ours, 0)

    def sweep():
        ours.sweep()
        ours.elbo()

    posterior = theirs(y.numpy())

    def their_sweep():
        posterior.update("z", "precision", "mean", "weights", repeat=1, tol=0, verbose=False)

    sweep_seconds, their_seconds = median_seconds(sweep), median_seconds(their_sweep)
    row = {
        "rows": rows,
        "vitools s/sweep": sweep_seconds,
        "BayesPy s/sweep": their_seconds,
        "ratio": their_seconds / sweep_seconds,
    }
    report("cavi_bayespy", [row])


if __name__ == "__main__":
    main()
