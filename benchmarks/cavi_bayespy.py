"""Gaussian mixture, full covariances, K = 10, d = 8: a sweep against BayesPy's, of the same model.

    python benchmarks/cavi_bayespy.py [--rows 100000]

BayesPy stores a message of K·d² numbers for each row (5 GB at a million rows), hence fewer rows.
"""

import argparse
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from cavi_mixture import D, K, double, mixture_data
from cavi_timing import median_seconds, report

from vitools.conjugacy import ConjugateModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from bayespy import nodes
    from bayespy.inference import VB


def model(y):
    eye = torch.eye(D, dtype=torch.float64)
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(K, dtype=torch.float64)))
    with pyro.plate("components", K):
        mean = pyro.sample("mean", dist.MultivariateNormal(eye[0] * 0, 100 * eye))
        precision = pyro.sample("precision", dist.Wishart(double(D + 1.0), covariance_matrix=eye))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.MultivariateNormal(mean[z], precision_matrix=precision[z]), obs=y)


def theirs(y):
    weights = nodes.Dirichlet(np.ones(K), name="weights")
    z = nodes.Categorical(weights, plates=(len(y),), name="z")
    mean = nodes.Gaussian(np.zeros(D), 0.01 * np.eye(D), plates=(K,), name="mean")
    precision = nodes.Wishart(D + 1, np.eye(D), plates=(K,), name="precision")
    observed = nodes.Mixture(z, nodes.Gaussian, mean, precision, name="y")
    observed.observe(y)
    mean.initialize_from_random()
    return VB(observed, z, mean, precision, weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    y = mixture_data(rows)
    ours = ConjugateModel(model, (y,))
    ours.initialise(0)

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
