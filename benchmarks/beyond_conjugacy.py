"""Coordinate ascent beyond conjugacy beside SVI with a full covariance, and NUTS where it is quick.

    OMP_NUM_THREADS=1 python benchmarks/beyond_conjugacy.py [--only NAME]

Seconds are of whole calls from the built ``Problem``, the derivation of the updates included; the first
call of the process is printed apart (it loads what torch loads on first use). ``bound`` is the judge's
E log p(y, θ) - log q(θ) of 2000 draws; errors are against NUTS, in its standard deviations, the worst
entry.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from cavi_timing import report
from torch import Tensor

from vitools import Posterior, Problem, cavi, nuts, svi
from vitools.guides import AutoMultivariate

DRAWS = 2000


def coefficients(size: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    w = pyro.sample("w", dist.Normal(torch.zeros(size), scale).to_event(1))
    return w, pyro.sample("b", dist.Normal(torch.zeros(()), 3.0))


def logistic(x: Tensor, y: Tensor) -> None:
    w, b = coefficients(x.shape[-1])
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + b), obs=y)


def poisson(x: Tensor, y: Tensor) -> None:
    w, b = coefficients(x.shape[-1])
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Poisson((x @ w + b).exp()), obs=y)


def robust(x: Tensor, y: Tensor) -> None:
    w, b = coefficients(x.shape[-1])
    scale = pyro.sample("scale", dist.HalfCauchy(torch.tensor(2.0).to(x)))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.StudentT(4.0, x @ w + b, scale), obs=y)


def classes(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[-1], 4), 1.0).to_event(2))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Categorical(logits=x @ w), obs=y)


def heteroscedastic(x: Tensor, y: Tensor) -> None:
    w, b = coefficients(x.shape[-1])
    g = pyro.sample("g", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w + b, (x @ g).exp()), obs=y)


def varying_intercepts(x: Tensor, group: Tensor, groups: int, y: Tensor) -> None:
    w, b = coefficients(x.shape[-1], 3.0)
    tau = pyro.sample("tau", dist.HalfNormal(torch.ones(())))
    with pyro.plate("groups", groups):
        u = pyro.sample("u", dist.Normal(torch.zeros(()), tau))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + b + u[group]), obs=y)


def drawn(model: Callable[..., Any], rows: int, columns: int, groups: int = 0) -> Problem:
    """The model on data of its own: coefficients of unit length, one draw."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, columns, generator=generator)
    w = torch.randn(columns, generator=generator)
    eta = 0.3 + x @ (w / w.norm())
    if model is poisson:
        return Problem(model, x, torch.poisson(eta.exp(), generator=generator))
    if model is classes:
        w4 = torch.randn(columns, 4, generator=generator)
        noise = -torch.empty(rows, 4).exponential_(generator=generator).log()
        return Problem(model, x, (x @ w4 + noise).argmax(-1))
    if model in (robust, heteroscedastic):
        noise = torch.randn(rows, generator=generator)
        if model is robust:
            noise = noise / torch.randn(rows, 4, generator=generator).square().mean(-1).sqrt()
        return Problem(model, x, eta + 0.7 * noise)
    if groups:
        group = torch.arange(rows) % groups
        eta = eta + 0.7 * torch.randn(groups, generator=generator)[group]
        y = (torch.rand(rows, generator=generator) < torch.sigmoid(eta)).to(x.dtype)
        return Problem(model, x, group, groups, y)
    y = (torch.rand(rows, generator=generator) < torch.sigmoid(eta)).to(x.dtype)
    return Problem(model, x, y)


CASES: dict[str, tuple[Callable[[], Problem], bool]] = {
    "logistic 1000 x 10": (lambda: drawn(logistic, 1000, 10), True),
    "logistic 100 000 x 50": (lambda: drawn(logistic, 100_000, 50), False),
    "Poisson 20 000 x 20": (lambda: drawn(poisson, 20_000, 20), False),
    "Student-t with unknown scale 1000 x 5": (lambda: drawn(robust, 1000, 5), True),
    "softmax of 4 classes 2000 x 5": (lambda: drawn(classes, 2000, 5), True),
    "location and log scale 1000 x 5": (lambda: drawn(heteroscedastic, 1000, 5), True),
    "logistic, 100 intercepts 3000 x 2": (lambda: drawn(varying_intercepts, 3000, 2, 100), True),
}
"""How each is drawn, and whether NUTS is run beside it."""


def row(name: str, method: str, seconds: float, fit: Posterior, truth: Posterior | None) -> dict:
    found: dict[str, Any] = {"case": name, "method": method, "s": seconds, "detail": fit.detail}
    if method != "NUTS":
        weights = fit.log_weights(DRAWS, seed=1).double()
        found |= {"bound": float(weights.mean()), "±": float(weights.std()) / DRAWS**0.5}
    if truth is not None:
        errors, ratios = [], []
        for site, mean in truth.mean().items():
            errors.append(((fit.mean()[site] - mean) / truth.sd()[site]).abs().max())
            ratio = fit.sd()[site] / truth.sd()[site]
            ratios += [ratio.min(), ratio.max()]
        found |= {
            "error": float(max(errors)),
            "sd ratios": f"{float(min(ratios)):.2f}-{float(max(ratios)):.2f}",
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    first = time.perf_counter()
    cavi(drawn(logistic, 100, 2))
    print(f"first call of the process: {time.perf_counter() - first:.2f} s")
    rows = []
    for name, (build, with_nuts) in CASES.items():
        if options.only not in name:
            continue
        problem = build()
        truth = None
        methods: dict[str, Callable[[], Posterior]] = {}
        if with_nuts:
            methods["NUTS"] = lambda problem=problem: nuts(problem, num_chains=4)
        methods["CAVI"] = lambda problem=problem: cavi(problem)
        methods["SVI"] = lambda problem=problem: svi(problem, AutoMultivariate)
        for method, run in methods.items():
            began = time.perf_counter()
            fit = run()
            seconds = time.perf_counter() - began
            truth = fit if method == "NUTS" else truth
            rows.append(row(name, method, seconds, fit, truth))
            print(rows[-1], flush=True)
    report("beyond_conjugacy", rows)


if __name__ == "__main__":
    main()
