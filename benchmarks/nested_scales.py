"""Nested scales beside long chains: standard deviations of scales, coefficients and effects, and the price.

    OMP_NUM_THREADS=1 python benchmarks/nested_scales.py DATA [--only NAME …] [--draws N]

``DATA`` is a folder with lme4's cbpp and sleepstudy as csv files. Each model is fitted with plain factors
(``nested=()``), with nested ones where it has scalar scales, and by NUTS (two chains) or, sleepstudy
with correlated slopes, by Gibbs sampling, all of whose conditionals are exact. ``sd_ratio`` is the sd of a
fit over that of the chains, of a site of several elements that of the one farthest from 1; ``times`` the
processor time of nested factors as a multiple of that of plain ones. Kept in ``results/nested_scales.json``.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from mixed_models import cbpp, codes, numbers, rows_of, simulated, sleepstudy
from scipy import stats
from torch import Tensor

from vitools import Problem, cavi, nuts

RESULTS = Path(__file__).parent / "results" / "nested_scales.json"


@dataclass
class Case:
    """A model and the scales that are nested; ``scales`` are judged apart from the other sites."""

    problem: Problem
    nested: list[str]
    scales: list[str]
    reference: Callable[[int], dict[str, Tensor]] | None = None
    """Draws by site; NUTS where None."""
    has_reference: bool = True


def eight_schools() -> Case:
    effects = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])

    def model(effects: Tensor, errors: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(effects)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("effect", dist.Normal(theta, errors), obs=effects)

    return Case(Problem(model, effects, errors), ["tau"], ["tau"])


def herds(folder: Path) -> Case:
    return Case(cbpp(rows_of(folder / "cbpp.csv")).problem, ["by_herd"], ["by_herd"])


def correlated_slopes(folder: Path) -> Case:
    """Sleepstudy: a level and a slope for each subject, of any covariance."""
    d = rows_of(folder / "sleepstudy.csv")
    subject, count = codes(d["Subject"])
    y, days = numbers(d["Reaction"]).numpy(), numbers(d["Days"]).numpy()

    def gibbs(draws: int) -> dict[str, Tensor]:
        """Coefficients and effects at once, their precision matrix, and sigma on a fine grid."""
        generator = np.random.default_rng(0)
        x = np.stack([np.ones(len(y)), days], 1)
        design = np.concatenate([x, np.zeros((len(y), 2 * count))], 1)
        for row, group in enumerate(subject.tolist()):
            design[row, 2 + 2 * group : 4 + 2 * group] = x[row]
        gram, linear = design.T @ design, design.T @ y
        prior = np.diag([300.0**-2] * 2 + [0.0] * (2 * count))
        precision, sigma = np.diag([1 / 600.0, 1 / 40.0]), 30.0
        grid = np.exp(np.linspace(np.log(10), np.log(70), 4000))
        kept: dict[str, list[Any]] = {"b": [], "u": [], "precision": [], "sigma": []}
        for number in range(draws + 2000):
            whole = gram / sigma**2 + prior
            whole[2:, 2:] += np.kron(np.eye(count), precision)
            root = np.linalg.cholesky(whole)
            theta = np.linalg.solve(whole, linear / sigma**2)
            theta += np.linalg.solve(root.T, generator.standard_normal(len(theta)))
            u = theta[2:].reshape(count, 2)
            rate = np.linalg.inv(np.diag([600.0, 40.0]) + u.T @ u)
            precision = stats.wishart(3 + count, rate).rvs(random_state=generator)
            squares = ((y - design @ theta) ** 2).sum()
            log = -(len(y) - 1) * np.log(grid) - squares / (2 * grid**2) - grid**2 / (2 * 100.0**2)
            chance = np.exp(log - log.max())
            sigma = generator.choice(grid, p=chance / chance.sum())
            if number >= 2000:
                for name, value in zip(kept, (theta[:2], u, precision, sigma), strict=True):
                    kept[name].append(value)
        return {name: torch.as_tensor(np.stack(values)) for name, values in kept.items()}

    problem = sleepstudy(d).problem
    return Case(problem, ["precision"], ["precision", "sigma"], gibbs)


def varying_intercepts(rows: int, groups: int) -> Case:
    return Case(simulated(rows, groups).problem, ["by_group"], ["by_group"], has_reference=False)


CASES: dict[str, Callable[[Path], Case]] = {
    "eight_schools": lambda folder: eight_schools(),
    "cbpp": herds,
    "sleepstudy_slopes": correlated_slopes,
    "logistic_3000_100": lambda folder: varying_intercepts(3000, 100),
    "logistic_3000_400": lambda folder: varying_intercepts(3000, 400),
}


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    made = run()
    return made, time.perf_counter() - wall, time.process_time() - processor


def beside(fit: Any, draws: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Of each site the sd over that of the draws where it is farthest from it, and the mean's error in sds."""
    ratios, errors = {}, {}
    for name, drawn in draws.items():
        ratio = (fit.sd()[name] / drawn.std(0)).reshape(-1)
        ratios[name] = float(ratio[ratio.log().abs().argmax()])
        errors[name] = float(((fit.mean()[name] - drawn.mean(0)) / drawn.std(0)).abs().max())
    return {"sd_ratio": ratios, "mean_error_in_sds": errors}


def measured(case: Case, draws: int) -> dict[str, Any]:
    plain, wall, processor = timed(lambda: cavi(case.problem, nested=()))
    nested, nested_wall, nested_processor = timed(lambda: cavi(case.problem, nested=case.nested))
    result: dict[str, Any] = {
        "plain": {"seconds": wall, "processor_seconds": processor, "bound": plain.bound},
        "nested": {
            "seconds": nested_wall,
            "processor_seconds": nested_processor,
            "bound": nested.bound,
            "cells": len(getattr(nested, "components", [nested])),
            "detail": nested.detail,
        },
        "times": nested_processor / processor,
    }
    if case.has_reference:
        sampled, seconds, _ = timed(lambda: (case.reference or by_nuts(case))(draws))
        result["reference"] = {
            "kind": "NUTS" if case.reference is None else "Gibbs",
            "seconds": seconds,
            "draws": draws,
        }
        result["plain"] |= beside(plain, sampled)
        result["nested"] |= beside(nested, sampled)
    return result


def by_nuts(case: Case) -> Callable[[int], dict[str, Tensor]]:
    def draws(count: int) -> dict[str, Tensor]:
        fit = nuts(case.problem, num_samples=count // 2, num_warmup=1500, num_chains=2)
        return dict(fit.sample(count))

    return draws


def worst(result: dict[str, Any], case: Case) -> str:
    if "sd_ratio" not in result["nested"]:
        return ""
    parts = []
    for name in ("plain", "nested"):
        of = result[name]["sd_ratio"]
        scales = max((of[s] for s in case.scales), key=lambda r: abs(math.log(r)))
        others = max(
            (r for s, r in of.items() if s not in case.scales), key=lambda r: abs(math.log(r))
        )
        parts.append(f"{name}: scales {scales:.3f}, others {others:.3f}")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=CASES)
    parser.add_argument("--draws", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    cavi(simulated(200, 10).problem)  # what torch loads on first use
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only or CASES:
        case = CASES[name](options.data)
        kept[name] = measured(case, options.draws)
        print(name, json.dumps(kept[name], indent=1), worst(kept[name], case), flush=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
