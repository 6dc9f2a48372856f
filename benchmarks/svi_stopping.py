"""Does the stopping rule end runs at the right place? Many seeds, against runs of fixed length.

    python benchmarks/svi_stopping.py [--seeds 20] [--only NAME]

Every fit is made with default options and its bound compared, on the same draws, with the best
bound that any run of the model reached, long ones at a small step among them. With the rule's
resolution r (.2 nats, or .01 a latent where that is more) and three standard errors,

    early   the bound is more than r below the best;
    late    the run took more than 4000 steps, and cut at half of them it was within r already.

Writes results/svi_stopping.json and .md.
"""

import argparse
import json
import math
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from vitools import Posterior, Problem, svi
from vitools.guides import (
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
    AutoMultivariate,
)
from vitools.models import SHIPPED, coin

RESULTS = Path(__file__).parent / "results"
DRAWS = 2000
LONG = 20_000
PATIENCE = 4000


def eight_schools() -> Problem:
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
        with pyro.plate("schools", 8):
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mu + tau * shift, errors), obs=effects)

    return Problem(model)


def shipped(name: str) -> Problem:
    example = SHIPPED[name].build(0)
    return Problem(example.model, *example.args, **example.kwargs)


@dataclass(frozen=True)
class Case:
    """A model and a guide."""

    problem: Callable[[], Problem]
    guide: Any
    options: dict[str, Any]


CASES = {
    "coin, Kumaraswamy": Case(
        lambda: Problem(coin.model, torch.tensor([1.0, 1.0, 0.0])), AutoKumaraswamy, {}
    ),
    "eight schools, multivariate": Case(eight_schools, AutoMultivariate, {}),
    "regression, mean field": Case(lambda: shipped("regression"), AutoMeanField, {}),
    "regression from the prior": Case(
        lambda: shipped("regression"), AutoMeanField, {"start": "guide"}
    ),
    "logistic regression, multivariate": Case(
        lambda: shipped("logistic-regression"), AutoMultivariate, {}
    ),
    "Poisson regression, multivariate": Case(
        lambda: shipped("poisson-regression"), AutoMultivariate, {}
    ),
    "two dice, Kumaraswamy": Case(lambda: shipped("two-dice"), AutoKumaraswamy, {}),
    "two dice, logistic normal": Case(lambda: shipped("two-dice"), AutoLogisticNormal, {}),
}


def bound(fit: Posterior) -> tuple[float, float]:
    estimate = fit.elbo(DRAWS, seed=12345)
    return estimate.value, estimate.standard_error


def one(name: str, seeds: int) -> dict[str, Any]:
    case = CASES[name]
    problem = case.problem()

    def run(seed: int, **options: Any) -> Posterior:
        return svi(problem, case.guide, seed=seed, compile=True, **case.options, **options)

    fits = [run(seed) for seed in range(seeds)]
    halves = [run(seed, max_steps=len(fit.history) // 2) for seed, fit in enumerate(fits)]
    best_of_all = max(fits, key=lambda fit: bound(fit)[0])
    long = [
        run(seeds + k, max_steps=LONG, learning_rate=rate) for k, rate in ((0, 0.01), (1, 0.05))
    ]
    long.append(svi(problem, case.guide, start=best_of_all, learning_rate=0.003))
    found, half = [bound(fit) for fit in fits], [bound(fit) for fit in halves]
    best = max(value for value, _ in found + half + [bound(fit) for fit in long])
    error = max(error for _, error in found)
    numbers = sum(site.shape.numel() for site in problem.drawn.values())
    allowed = max(0.2, 0.01 * numbers) + 3 * error
    deficits = [best - value for value, _ in found]
    steps = [len(fit.history) for fit in fits]
    return {
        "case": name,
        "runs": seeds,
        "converged": sum(fit.status.label == "converged" for fit in fits),
        "steps": [min(steps), int(statistics.median(steps)), max(steps)],
        "allowed": allowed,
        "early": sum(deficit > allowed for deficit in deficits),
        "late": sum(
            best - value <= allowed and count > PATIENCE
            for (value, _), count in zip(half, steps, strict=True)
        ),
        "deficit": [statistics.median(deficits), max(deficits)],
        "bound error": error,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model and guide | runs | converged | steps: least, median, most | early | late "
        "| nats below the best: median, worst | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        least, median, most = r["steps"]
        lines.append(
            f"| {r['case']} | {r['runs']} | {r['converged']} | {least}, {median}, {most} "
            f"| {r['early']} | {r['late']} | {r['deficit'][0]:.2f}, {r['deficit'][1]:.2f} "
            f"| {r['bound error']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in CASES:
        if options.only in name:
            rows.append(one(name, options.seeds))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(markdown(rows))
    assert all(math.isfinite(r["deficit"][1]) for r in rows)
    if not options.only and options.seeds >= 20:
        (RESULTS / "svi_stopping.json").write_text(json.dumps(rows, indent=1))
        (RESULTS / "svi_stopping.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
