"""Thirteen posteriors by every method that can, against Stan's reference draws.

    python benchmarks/posteriordb/run.py [--data ../shared/data/posteriordb] [--only NAME]

NUTS is held against the reference by the distance of each mean in Monte Carlo standard errors of
both sides (at most 4 is expected), the approximate fits by the judge that ``compare`` uses, with
the reference's moments as truth. Coordinate ascent has no closed form for any of the thirteen:
their scales carry half-Cauchy, half-normal or flat priors.

Writes results/posteriordb.json and, as Markdown, results/posteriordb.md.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from posteriors import POSTERIORS

from vitools import Posterior, Problem, cavi, dadvi, nuts, svi
from vitools.diagnostics import Moments, judge, moments
from vitools.diagnostics.reference import reference_draws, reference_moments
from vitools.errors import VitoolsError
from vitools.guides import AutoFlow, AutoKumaraswamy, AutoMeanField, AutoMultivariate

HERE = Path(__file__).resolve().parent
REFERENCE_CHAINS = 10

METHODS: dict[str, Callable[[Problem], Posterior]] = {
    "NUTS": lambda problem: nuts(problem, num_samples=1000, num_warmup=1000, seed=1),
    "CAVI": cavi,
    "DADVI": lambda problem: dadvi(problem, covariance="linear_response"),
    "mean field": lambda problem: svi(problem, AutoMeanField),
    "Kumaraswamy": lambda problem: svi(problem, AutoKumaraswamy),
    "multivariate": lambda problem: svi(problem, AutoMultivariate),
    "flow": lambda problem: svi(problem, AutoFlow),
}

Row = dict[str, Any]


def farthest_mean(found: dict[str, Moments], truth: dict[str, Moments]) -> float:
    """The largest distance of a mean from the reference's, in standard errors of both."""
    return max(
        float(
            ((m.mean - truth[name].mean) / (m.mean_error**2 + truth[name].mean_error ** 2).sqrt())
            .abs()
            .max()
        )
        for name, m in found.items()
    )


def row(name: str, method: str, problem: Problem, truth: Any, draws: Any) -> Row:
    began = time.perf_counter()
    found: Row = {"posterior": name, "method": method}
    try:
        fit = METHODS[method](problem)
    except VitoolsError as error:
        return found | {"refused": str(error)}
    found["seconds"] = time.perf_counter() - began
    judgement = judge(fit, truth, reference_draws=draws)
    accuracy = judgement.accuracy
    assert accuracy is not None
    for label, figure in (
        ("mean error", accuracy.mean_error),
        ("sd ratio", accuracy.sd_ratio),
        ("khat", judgement.khat),
    ):
        if figure is not None:
            found |= {label: figure.value, f"{label} se": figure.standard_error}
    if method == "NUTS":
        found["farthest mean"] = farthest_mean(moments(fit, {}), truth)
    return found | {
        "status": fit.status.label,
        "detail": fit.detail,
        "verdict": judgement.verdict.grade.value,
        "reason": judgement.verdict.reason,
    }


def markdown(rows: list[Row]) -> str:
    lines = [
        "| posterior | method | mean error | sd ratio | k̂ | seconds | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "refused" in r:
            continue
        note = f"farthest mean {r['farthest mean']:.1f} MCSE" if "farthest mean" in r else ""
        khat = f"{r['khat']:.2f}" if "khat" in r else ""
        lines.append(
            f"| {r['posterior']} | {r['method']} | {r['mean error']:.3f} ± {r['mean error se']:.3f} "
            f"| {r['sd ratio']:.2f} ± {r['sd ratio se']:.2f} | {khat} | {r['seconds']:.1f} "
            f"| {note or r['verdict']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared/data/posteriordb")
    parser.add_argument("--only", default="", help="posteriors whose name contains this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    for name, posterior in POSTERIORS.items():
        if options.only not in name:
            continue
        problem = posterior.problem(options.data)
        draws = posterior.latents(posterior.reference(options.data))
        truth = reference_moments(problem, draws, REFERENCE_CHAINS)
        for method in METHODS:
            rows.append(row(name, method, problem, truth, reference_draws(problem, draws)))
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    print(markdown(rows))
    if not options.only:
        folder = HERE.parent / "results"
        (folder / "posteriordb.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))
        (folder / "posteriordb.md").write_text(markdown(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
