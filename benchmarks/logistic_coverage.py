"""Logistic regressions drawn by the recipe of mkomod/vi-per (Komodromos and others 2024): bound, coverage, seconds.

    OMP_NUM_THREADS=1 python benchmarks/logistic_coverage.py [--rows 500] [--runs 20]

25 columns of independent normals, coefficients ± uniform on (0.2, 2), priors N(0, 1). ``bound`` is that of the
fit's Gaussian, by one function for all: E log p(y | X w) by 60 Gauss-Hermite nodes less KL(q, p). ``coverage`` is
the part of the true X w inside central 95 % intervals. Medians over the data sets; seconds are the process's.
Beside ``cavi``: the quadratic bound of Jaakkola and Jordan (2000), whose fixed point is that of Pólya-Gamma
augmentation, to a relative change of 1e-8; and ``svi`` with a full covariance, by draws.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from cavi_timing import report
from torch import Tensor

from vitools import Problem, cavi, svi
from vitools.guides import AutoMultivariate

COLUMNS = 25
Gaussian = tuple[Tensor, Tensor]
"""Mean and covariance of the coefficients."""


def model(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(x.shape[-1]), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def drawn(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, COLUMNS, generator=generator)
    size = 0.2 + 1.8 * torch.rand(COLUMNS, generator=generator)
    w = torch.where(torch.rand(COLUMNS, generator=generator) < 0.5, -size, size)
    y = (torch.rand(rows, generator=generator) < torch.sigmoid(x @ w)).double()
    return x, y, w


def by_cavi(x: Tensor, y: Tensor) -> Gaussian:
    marginal = cavi(Problem(model, x, y)).marginal("w")
    return marginal.mean, marginal.covariance_matrix


def by_svi(x: Tensor, y: Tensor) -> Gaussian:
    draws = svi(Problem(model, x, y), AutoMultivariate).sample(20_000)["w"]
    return draws.mean(0), draws.T.cov()


def by_jaakkola(x: Tensor, y: Tensor) -> Gaussian:
    """-log(1 + e^-z) ≥ log σ(ξ) + (z - ξ)/2 - λ(ξ)(z² - ξ²), ξ² = E η² in turn with the Gaussian."""
    linear, xi, last = x.T @ (y - 0.5), torch.ones_like(y), -math.inf
    while True:
        weight = torch.tanh(xi / 2) / (2 * xi)
        root = torch.linalg.cholesky(torch.eye(COLUMNS) + x.T @ (weight.unsqueeze(-1) * x))
        covariance = torch.cholesky_inverse(root)
        mean = covariance @ linear
        xi = ((x @ mean) ** 2 + ((x @ covariance) * x).sum(-1)).sqrt()
        bound = float((torch.nn.functional.logsigmoid(xi) - xi / 2).sum() + linear @ mean / 2)
        if abs(bound - last) <= 1e-8 * abs(bound):
            return mean, covariance
        last = bound


def bound_of(q: Gaussian, x: Tensor, y: Tensor) -> float:
    mean, covariance = q
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(60))
    eta, sd = x @ mean, ((x @ covariance) * x).sum(-1).sqrt()
    at = eta.unsqueeze(-1) + sd.unsqueeze(-1) * nodes
    expected = torch.nn.functional.softplus(at) @ weights / math.sqrt(2 * math.pi)
    divergence = covariance.trace() + mean @ mean - COLUMNS - torch.logdet(covariance)
    return float((y * eta - expected).sum() - divergence / 2)


def coverage_of(q: Gaussian, x: Tensor, w: Tensor) -> float:
    mean, covariance = q
    sd = ((x @ covariance) * x).sum(-1).sqrt()
    return float(((x @ (mean - w)).abs() < 1.959964 * sd).double().mean())


METHODS: dict[str, Callable[[Tensor, Tensor], Gaussian]] = {
    "cavi": by_cavi,
    "Jaakkola": by_jaakkola,
    "svi, full covariance": by_svi,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 10_000])
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 3])
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    by_cavi(*drawn(50, 0)[:2])  # what is loaded on first use
    rows = []
    for count, runs in zip(options.rows, options.runs, strict=True):
        data = [drawn(count, seed) for seed in range(1, runs + 1)]
        for name, fit in METHODS.items():
            bounds, coverages, seconds = [], [], []
            for x, y, w in data:
                began = time.process_time()
                q = fit(x, y)
                seconds.append(time.process_time() - began)
                bounds.append(bound_of(q, x, y))
                coverages.append(coverage_of(q, x, w))
            rows.append(
                {
                    "rows": count,
                    "data sets": runs,
                    "method": name,
                    "bound": statistics.median(bounds),
                    "coverage": statistics.median(coverages),
                    "processor s": statistics.median(seconds),
                }
            )
            print(rows[-1], flush=True)
    report("logistic_coverage", rows)


if __name__ == "__main__":
    main()
