"""Does a verdict depend on the seed of the judge's draws?

    python benchmarks/verdict_repeatability.py [--data ../shared/data/posteriordb]
                                               [--out benchmarks/results] [--only NAME]
                                               [--seeds 5] [--workers 2] [--fresh]

The fits of :mod:`verdict_honesty` to some of its models, by engines and constructed, are judged by
five seeds each, alone and against the reference. Counted are the pairs of seeds that disagree, and the
fits that one seed trusts and another refuses.

Each row is kept in verdict_repeatability.jsonl as it comes, and a second call goes on from there
(``--fresh`` begins anew); the table is verdict_repeatability.md.
"""

import time
import warnings
from collections import Counter
from functools import partial
from itertools import combinations
from pathlib import Path

import judged_tables
import torch
from resumable import Row
from verdict_honesty import (
    ALL_CONSTRUCTED,
    CONSTRUCTED,
    METHODS,
    constructed,
    gaussian,
    problem_and_truth,
)

from vitools.diagnostics import judge
from vitools.errors import VitoolsError
from vitools.posterior import Posterior

MODELS = (
    "regression, 30 rows",
    "eight_schools-eight_schools_noncentered",
    "kilpisjarvi_mod-kilpisjarvi",
    "logistic regression",
    "kidiq-kidscore_interaction",
    "mesquite-mesquite",
    "low_dim_gauss_mix-low_dim_gauss_mix",
    "arK-arK",
    "two dice",
)
FITTED = ("cavi", "dadvi", "mean field", "mean field, 200 steps", "multivariate", "flow")
NAMES = ("model", "method")
ALONE, REFERENCE = "alone", "against a reference"


def row(data: Path, seeds: int, name: str, method: str) -> Row:
    """One fit and its verdicts."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    problem, (draws, moments) = problem_and_truth(data, name)
    try:
        if method.startswith(CONSTRUCTED):
            made = constructed(problem, draws, 0)[method.removeprefix(CONSTRUCTED)]
            fit: Posterior = gaussian(problem, *made)
        else:
            fit = METHODS[method](problem, 0)
    except VitoolsError as error:
        return {"refused": str(error)[:200]}
    found: Row = {}
    for kind, reference in ((ALONE, None), (REFERENCE, moments)):
        began = time.process_time()
        judged = [judge(fit, reference, seed=seed).verdict for seed in range(seeds)]
        found[kind] = [verdict.grade.value for verdict in judged]
        found[f"reasons {kind}"] = [verdict.reason for verdict in judged]
        found[f"seconds {kind}"] = round((time.process_time() - began) / seeds, 2)
    return found


def disagreement(verdicts: list[str]) -> float:
    """The share of pairs of seeds that disagree."""
    pairs = list(combinations(verdicts, 2))
    return sum(a != b for a, b in pairs) / len(pairs)


def summary(rows: list[Row]) -> str:
    """Markdown: how often seeds disagree, then the fits on which they do."""
    rows = [r for r in rows if "refused" not in r]
    lines = [
        "| judged | fits | two seeds disagree | *trust* and *do not use* of one fit | CPU seconds a "
        "judgement, median and most |",
        "|---|---|---|---|---|",
    ]
    for kind in (ALONE, REFERENCE):
        share = sum(disagreement(r[kind]) for r in rows) / len(rows)
        far = sum({"trust", "do not use"} <= set(r[kind]) for r in rows)
        seconds = sorted(r[f"seconds {kind}"] for r in rows)
        lines.append(
            f"| {kind} | {len(rows)} | {100 * share:.1f} % | {far} | "
            f"{seconds[len(seconds) // 2]:.2f}, {seconds[-1]:.2f} |"
        )
    lines += ["", "| model | fit | judged | verdicts |", "|---|---|---|---|"]
    for r in rows:
        for kind in (ALONE, REFERENCE):
            counts = Counter(r[kind])
            if len(counts) > 1:
                words = ", ".join(f"{n} {grade}" for grade, n in counts.most_common())
                lines.append(f"| {r['model']} | {r['method']} | {kind} | {words} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = judged_tables.parser(__doc__, seeds=5).parse_args()
    methods = [*(CONSTRUCTED + kind for kind in ALL_CONSTRUCTED), *FITTED]
    keys = [(name, method) for name in MODELS if options.only in name for method in methods]
    compute_row = partial(row, options.data, options.seeds)
    judged_tables.table(
        options,
        "verdict_repeatability",
        keys,
        NAMES,
        compute_row,
        summary,
        together=len(methods),
    )


if __name__ == "__main__":
    main()
