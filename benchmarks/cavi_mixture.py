"""Gaussian mixture, N rows, K = 10, d = 8: a sweep against scikit-learn's variational EM step.

    python benchmarks/cavi_mixture.py [--rows 1000000]

scikit-learn ties the prior of a mean to its component's precision, the Pyro model here does not,
so bounds differ by construction; both do the same work per row and iteration.
"""

import argparse
import time
import warnings

import pyro
import pyro.distributions as dist
import torch
from cavi_timing import median_seconds, peak_megabytes, report
from sklearn.mixture import BayesianGaussianMixture

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise

K, D = 10, 8


def double(x):
    return torch.tensor(x, dtype=torch.float64)


def diagonal(y):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(K, dtype=torch.float64)))
    with pyro.plate("components", K):
        mean = pyro.sample("mean", dist.Normal(double(0.0).expand(D), double(10.0)).to_event(1))
        tau = pyro.sample("tau", dist.Gamma(double(1.0).expand(D), double(1.0)).to_event(1))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mean[z], tau[z].rsqrt()).to_event(1), obs=y)


def full(y):
    eye = torch.eye(D, dtype=torch.float64)
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(K, dtype=torch.float64)))
    with pyro.plate("components", K):
        mean = pyro.sample("mean", dist.MultivariateNormal(eye[0] * 0, 100 * eye))
        precision = pyro.sample("precision", dist.Wishart(double(D + 2.0), covariance_matrix=eye))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.MultivariateNormal(mean[z], precision_matrix=precision[z]), obs=y)


def mixture_data(rows, spread=3.0):
    """Ten unit Gaussians whose centres have the standard deviation ``spread``."""
    generator = torch.Generator().manual_seed(0)
    centres = spread * torch.randn(K, D, generator=generator, dtype=torch.float64)
    picked = torch.randint(K, (rows,), generator=generator)
    return centres[picked] + torch.randn(rows, D, generator=generator, dtype=torch.float64)


def scikit_learn_seconds(data, covariance):
    """Seconds an iteration: the difference between fits of 1 and of 6 iterations."""

    def run(iterations):
        mixture = BayesianGaussianMixture(
            n_components=K,
            covariance_type=covariance,
            max_iter=iterations,
            tol=0,
            init_params="random",
            random_state=0,
        )
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            mixture.fit(data)
        return time.perf_counter() - start

    return (run(6) - run(1)) / 5


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    y = mixture_data(rows)
    table = []
    for name, model, covariance in (("diagonal", diagonal, "diag"), ("full", full, "full")):
        before = peak_megabytes()
        fitted = ConjugateModel(model, (y,))
        initialise(fitted, 0)
        ours = median_seconds(fitted.sweep)
        extra = peak_megabytes() - before
        theirs = scikit_learn_seconds(y.numpy(), covariance)
        table.append(
            {
                "covariance": name,
                "rows": rows,
                "vitools s/sweep": ours,
                "scikit-learn s/iteration": theirs,
                "ratio": theirs / ours,
                "MB beyond data": extra,
            }
        )
    report("cavi_mixture", table)


if __name__ == "__main__":
    main()
