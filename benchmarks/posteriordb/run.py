"""Thirteen posteriors by every method that can, against Stan's reference draws.

    python benchmarks/posteriordb/run.py [--data ../shared/data/posteriordb] [--only NAME]
                                         [--workers 2] [--fresh]

NUTS is held against the reference by the distance of each mean in Monte Carlo standard errors of
both sides (at most 4 is expected), the approximate fits by the judge that ``compare`` uses, with
the reference's moments as truth. Coordinate ascent refuses what has two latents that do not separate;
its refusals are counted. The first fit of a process pays for what torch loads then. Kumaraswamy
guides differ from Gaussian ones where a site lives on a simplex or the unit interval, and are run
there only.

Each row is kept in results/posteriordb.jsonl as it comes, and a second call goes on from there
(``--fresh`` begins anew); the table is results/posteriordb.md.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from posteriors import POSTERIORS
from torch.distributions import constraints

from vitools import Posterior, Problem, cavi, dadvi, nuts, svi
from vitools.diagnostics import Moments, judge, moments
from vitools.diagnostics.reference.reference import reference_draws, reference_moments
from vitools.errors import VitoolsError
from vitools.guides import AutoFlow, AutoKumaraswamy, AutoMeanField, AutoMultivariate
from vitools.supports import base_support

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from resumable import Row, compute  # noqa: E402

REFERENCE_CHAINS = 10
MOST_ERRORS = 4.0
SEED = 1

METHODS: dict[str, Callable[[Problem], Posterior]] = {
    "NUTS": lambda problem: nuts(problem, num_samples=1000, num_warmup=1000, seed=SEED),
    "CAVI": lambda problem: cavi(problem, seed=SEED),
    "DADVI": lambda problem: dadvi(problem, covariance="linear_response", seed=SEED),
    "mean field": lambda problem: svi(problem, AutoMeanField, seed=SEED),
    "Kumaraswamy": lambda problem: svi(problem, AutoKumaraswamy, seed=SEED),
    "multivariate": lambda problem: svi(problem, AutoMultivariate, seed=SEED),
    "flow": lambda problem: svi(problem, AutoFlow, max_steps=8000, seed=SEED),
}
NAMES = ("posterior", "method")


def has_bounded_sites(problem: Problem) -> bool:
    bounded = (constraints.simplex, constraints.unit_interval)
    return any(base_support(site.support) in bounded for site in problem.continuous.values())


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


def row(data: Path, name: str, method: str) -> Row:
    """One fit of one posterior."""
    warnings.simplefilter("ignore")
    posterior = POSTERIORS[name]
    problem = posterior.problem(data)
    if method == "Kumaraswamy" and not has_bounded_sites(problem):
        return {"refused": "no site on a simplex or the unit interval: the same as mean field"}
    draws = posterior.latents(posterior.reference(data))
    truth = reference_moments(problem, draws, REFERENCE_CHAINS)
    began = time.perf_counter()
    try:
        fit = METHODS[method](problem)
    except VitoolsError as error:
        return {"refused": str(error)}
    found: Row = {"seconds": round(time.perf_counter() - began, 2)}
    judgement = judge(fit, truth, reference_draws=reference_draws(problem, draws))
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
        "mean error at": accuracy.mean_error_at,
        "sd ratio at": accuracy.sd_ratio_at,
        "status": fit.status.label,
        "detail": fit.detail,
        "verdict": judgement.verdict.grade.value,
        "reason": judgement.verdict.reason,
    }


def markdown(rows: list[Row]) -> str:
    """Errors of means are in the reference's sds; of NUTS also in Monte Carlo standard errors."""
    lines = [
        "| posterior | method | mean error (sd) | sd ratio | k̂ | seconds | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "refused" in r:
            continue
        note = f"; means within {r['farthest mean']:.1f} MCSE" if "farthest mean" in r else ""
        khat = f"{r['khat']:.2f}" if "khat" in r else ""
        lines.append(
            f"| {r['posterior']} | {r['method']} | {r['mean error']:.3f} ± {r['mean error se']:.3f} "
            f"| {r['sd ratio']:.2f} ± {r['sd ratio se']:.2f} | {khat} | {r['seconds']:.1f} "
            f"| {r['verdict']}{note} |"
        )
    return "\n".join([*lines, "", summary(rows)]) + "\n"


def summary(rows: list[Row]) -> str:
    farthest = [r["farthest mean"] for r in rows if "farthest mean" in r]
    within = sum(distance <= MOST_ERRORS for distance in farthest)
    refused = sum("refused" in r for r in rows if r["method"] == "CAVI")
    return (
        f"NUTS: means within {MOST_ERRORS:.0f} Monte Carlo standard errors of Stan's on {within} of "
        f"{len(farthest)} posteriors (farthest {max(farthest, default=0.0):.1f}). "
        f"CAVI refuses {refused} of them."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared/data/posteriordb")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    parser.add_argument("--only", default="", help="posteriors whose name contains this")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    options = parser.parse_args()
    store = options.out / "posteriordb.jsonl"
    if options.fresh:
        store.unlink(missing_ok=True)
    keys = [(name, method) for name in POSTERIORS if options.only in name for method in METHODS]
    began = time.perf_counter()
    rows = compute(store, keys, NAMES, partial(row, options.data), options.workers)
    print(markdown(rows))
    print(f"{time.perf_counter() - began:.0f} s")
    if not options.only:
        (options.out / "posteriordb.md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
