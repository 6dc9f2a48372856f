"""Is a NUTS run that is wrong refused as a reference?

    python benchmarks/nuts_references.py [--data ../shared/data/posteriordb]
                                         [--out benchmarks/results] [--only NAME] [--seeds 6]
                                         [--workers 2] [--fresh]

NUTS on posteriors that it cannot follow (a funnel, the centred eight schools, a banana) and on two that
it can, by several seeds. The truth is exact, or Stan's draws of the non-centred eight schools. A run
may serve as a reference where its own verdict is *trust*; it is wrong where a mean is more than four
Monte Carlo errors off (of both sides), as one mean in 16 000 would be by chance.

Each row is kept in nuts_references.jsonl as it comes, and a second call goes on from there (``--fresh``
begins anew); the table is nuts_references.md.
"""

import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import judged_tables
import pyro
import pyro.distributions as dist
import torch
from resumable import Row
from torch import Tensor

from vitools import Problem, nuts
from vitools.diagnostics import Grade, Moments, judge
from vitools.diagnostics.reference.reference import reference_moments
from vitools.models import bayesian_regression

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "posteriordb"))
from posteriors import POSTERIORS  # noqa: E402

MOST_ERRORS = 4.0
NAMES = ("target", "seed")
ANY = torch.tensor(0.0).double()
Truth = dict[str, Moments]


def funnel(y: Tensor) -> None:
    v = pyro.sample("v", dist.Normal(torch.zeros_like(y), 3.0))
    with pyro.plate("groups", 9):
        pyro.sample("x", dist.Normal(torch.zeros_like(y), (v / 2).exp()))
    pyro.sample("y", dist.Normal(torch.zeros_like(y), 1.0), obs=y)


def banana(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(torch.zeros_like(y), 2.0))
    pyro.sample("b", dist.Normal(a**2 - 4.0, 0.1))
    pyro.sample("y", dist.Normal(torch.zeros_like(y), 1.0), obs=y)


def centred_schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(y.new_tensor(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(y.new_tensor(5.0)))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def exact(**means: tuple[float, float]) -> Truth:
    """Means and sds known exactly."""
    return {k: Moments.exact(*torch.tensor(v).double()) for k, v in means.items()}


def of_funnel(_: Path) -> tuple[Problem, Truth]:
    return Problem(funnel, ANY), exact(v=(0.0, 3.0))


def of_banana(_: Path) -> tuple[Problem, Truth]:
    # b = a² - 4 + noise, and var a² = 2 · 2⁴
    return Problem(banana, ANY), exact(a=(0.0, 2.0), b=(0.0, (32.0 + 0.01) ** 0.5))


def of_schools(data: Path, *, centred: bool) -> tuple[Problem, Truth]:
    stored = POSTERIORS["eight_schools-eight_schools_noncentered"]
    problem, draws = stored.problem(data), stored.reference(data)
    if centred:
        problem = Problem(centred_schools, *problem.args)
    else:
        draws = stored.latents(draws)
    return problem, reference_moments(problem, draws, 10)


@cache
def of_regression(_: Path) -> tuple[Problem, Truth]:
    found = bayesian_regression.simulate(30, 4, 1)
    problem = Problem(bayesian_regression.model, found.features, found.target)
    long = nuts(problem, num_samples=5000, seed=99)
    return problem, reference_moments(problem, long.draws, 4)


TARGETS: dict[str, Callable[[Path], tuple[Problem, Truth]]] = {
    "funnel": of_funnel,
    "eight schools, centred": partial(of_schools, centred=True),
    "banana": of_banana,
    "eight schools, non-centred": partial(of_schools, centred=False),
    "regression": of_regression,
}


def row(data: Path, name: str, seed: int) -> Row:
    """One run: how far off it is, and what is said of it."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    problem, truth = TARGETS[name](data)
    fit = nuts(problem, num_samples=1000, num_warmup=1000, num_chains=4, seed=seed)
    found = judge(fit)
    errors = [
        (found.moments[k].mean - true.mean).abs()
        / (found.moments[k].mean_error ** 2 + true.mean_error**2).sqrt()
        for k, true in truth.items()
    ]
    sds = [(found.moments[k].sd / true.sd).log().abs().max() for k, true in truth.items()]
    return {
        "errors": round(max(float(e.max()) for e in errors), 1),
        "sd_factor": round(float(torch.stack(sds).max().exp()), 2),
        "status": fit.status.label,
        "detail": fit.detail,
        "verdict": found.verdict.grade.value,
        "reason": found.verdict.reason,
    }


def summary(rows: list[Row]) -> str:
    """Markdown: by target, how many runs are wrong, accepted, and both."""
    lines = [
        "| target | runs | worst mean, in Monte Carlo errors | wrong | accepted as reference "
        "| wrong and accepted |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(r["target"] for r in rows):
        own = [r for r in rows if r["target"] == name]
        wrong = [r["errors"] > MOST_ERRORS for r in own]
        taken = [r["verdict"] == Grade.TRUST.value for r in own]
        both = sum(a and b for a, b in zip(wrong, taken, strict=True))
        errors = ", ".join(f"{r['errors']:.1f}" for r in own)
        lines.append(f"| {name} | {len(own)} | {errors} | {sum(wrong)} | {sum(taken)} | {both} |")
    lines += ["", "| target | seed | verdict | reason |", "|---|---|---|---|"]
    lines += [f"| {r['target']} | {r['seed']} | {r['verdict']} | {r['reason']} |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = judged_tables.parser(__doc__, seeds=6).parse_args()
    keys = [(name, s) for name in TARGETS if options.only in name for s in range(options.seeds)]
    compute_row = partial(row, options.data)
    judged_tables.table(options, "nuts_references", keys, NAMES, compute_row, summary)


if __name__ == "__main__":
    main()
