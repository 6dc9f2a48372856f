"""Nested scales beside long NUTS: standard deviations of scales, coefficients and effects, and the price.

    OMP_NUM_THREADS=1 python benchmarks/nested_scales.py DATA [--only NAME …] [--draws N]

``DATA`` is a folder with lme4's cbpp and sleepstudy as csv files. Each model is fitted with plain factors
(``nested=()``), with nested ones, and by NUTS (two chains). ``ratio`` is the sd of a fit over that of
NUTS, of a site of several elements that of the one farthest from 1; ``times`` the processor time of nested
factors as a multiple of that of plain ones. Kept in ``results/nested_scales.json``.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from mixed_models import cbpp, codes, numbers, rows_of, simulated
from torch import Tensor

from vitools import Problem, cavi, nuts

RESULTS = Path(__file__).parent / "results" / "nested_scales.json"


@dataclass
class Case:
    """A model and the scales that are nested; ``scales`` are judged apart from the other sites."""

    problem: Problem
    nested: list[str]
    scales: list[str]
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
    """Sleepstudy: a level and a slope for each subject, the slope given the level by regression.

    The same as a covariance matrix of both: cov = slope_on_level · by_level².
    """
    d = rows_of(folder / "sleepstudy.csv")
    subject, count = codes(d["Subject"])
    y, days = numbers(d["Reaction"]) / 100, numbers(d["Days"]) / 5

    def model(y: Tensor, days: Tensor, subject: Tensor) -> None:
        b = pyro.sample("b", dist.Normal(torch.tensor([3.0, 0.5]), 2.0).to_event(1))
        by_level = pyro.sample("by_level", dist.HalfNormal(torch.tensor(1.0)))
        by_slope = pyro.sample("by_slope", dist.HalfNormal(torch.tensor(1.0)))
        lean = pyro.sample("lean", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(torch.tensor(1.0)))
        with pyro.plate("subjects", count):
            level = pyro.sample("level", dist.Normal(torch.zeros(()), by_level))
            slope = pyro.sample("slope", dist.Normal(lean * level, by_slope))
        with pyro.plate("rows", len(y)):
            mean = b[0] + b[1] * days + level[subject] + slope[subject] * days
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    nested = ["by_level", "by_slope", "lean"]
    return Case(Problem(model, y, days, subject), nested, ["by_level", "by_slope", "sigma"])


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


def ratios(fit: Any, reference: Any, case: Case) -> dict[str, float]:
    """The sd of each site over that of the reference, where it is farthest from it."""
    found = {}
    for name, sd in reference.sd().items():
        ratio = (fit.sd()[name] / sd).reshape(-1)
        found[name] = float(ratio[ratio.log().abs().argmax()])
    return found


def measured(case: Case, draws: int) -> dict[str, Any]:
    plain, wall, processor = timed(lambda: cavi(case.problem, nested=()))
    nested, nested_wall, nested_processor = timed(lambda: cavi(case.problem, nested=case.nested))
    result: dict[str, Any] = {
        "plain": {"seconds": wall, "processor_seconds": processor, "bound": plain.bound},
        "nested": {
            "seconds": nested_wall,
            "processor_seconds": nested_processor,
            "bound": nested.bound,
            "cells": len(nested.components),
            "detail": nested.detail,
        },
        "times": nested_processor / processor,
    }
    if case.has_reference:
        reference, seconds, _ = timed(
            lambda: nuts(case.problem, num_samples=draws, num_warmup=1500, num_chains=2)
        )
        result["nuts"] = {"seconds": seconds, "draws": 2 * draws, "detail": reference.detail}
        for name, fit in (("plain", plain), ("nested", nested)):
            result[name]["sd_ratio"] = ratios(fit, reference, case)
            error = {
                site: float(((fit.mean()[site] - mean) / reference.sd()[site]).abs().max())
                for site, mean in reference.mean().items()
            }
            result[name]["mean_error_in_sds"] = error
    return result


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
