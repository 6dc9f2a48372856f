"""How honest the verdict is where no reference is at hand to check it.

    python benchmarks/verdict_honesty.py [--data ../shared/data/posteriordb] [--out benchmarks/results]
                                         [--only NAME] [--seeds 1] [--workers 2] [--fresh]

Every model is fitted by every method that can, and judged *without* a reference. The answer is then
held against one: Stan's draws for the models of posteriordb, long NUTS runs for those that ship. An
answer is bad if its worst mean is off by more than 0.2 sd or its worst sd by more than 25 %.

Besides the engines' fits there are constructed ones: Gaussians in unconstrained space with the
reference's own mean and covariance, and with chosen errors (the optimal mean field, a shifted mean,
a spread too small or too large). They need no optimiser, so many can be judged, and what is wrong
with them is known.

Two figures matter: how often ``trust`` is said of a bad answer (it should never be) and how many
good answers get it (the more the better, or nobody listens). Some fits are stopped early on
purpose, for a verdict must tell an unfinished fit, too.

Each row is kept in verdict_honesty.jsonl as it comes, and a second call goes on from there
(``--fresh`` begins anew); the table is verdict_honesty.md.
"""

import sys
import time
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import judged_tables
import torch
from resumable import Row
from torch import Tensor

from vitools import Problem, cavi, dadvi, nuts, svi
from vitools.diagnostics import Moments, judge, measure_accuracy, moments
from vitools.diagnostics.reference.moments import quantities
from vitools.diagnostics.reference.reference import reference_moments
from vitools.errors import VitoolsError
from vitools.guides import AutoFlow, AutoMeanField, AutoMultivariate
from vitools.models import bayesian_regression, coin, two_dice
from vitools.posterior import GaussianPosterior, Posterior, Status
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "posteriordb"))
from posteriors import POSTERIORS  # noqa: E402

MEAN_LIMIT, SD_LIMIT = 0.2, 0.25
STEPS, FLOW_STEPS = 3000, 1000
"""What repays a wait of minutes, not of an hour; a fit that is not at its end is no easier to judge."""
REFERENCE_CHAINS = 10

METHODS: dict[str, Callable[[Problem, int], Posterior]] = {
    "cavi": lambda problem, seed: cavi(problem, seed=seed),
    "dadvi": lambda problem, seed: dadvi(problem, covariance="linear_response", seed=seed),
    "mean field": lambda problem, seed: svi(problem, AutoMeanField, max_steps=STEPS, seed=seed),
    "mean field, 200 steps": lambda problem, seed: svi(
        problem, AutoMeanField, max_steps=200, seed=seed
    ),
    "multivariate": lambda problem, seed: svi(
        problem, AutoMultivariate, max_steps=STEPS, seed=seed
    ),
    "flow": lambda problem, seed: svi(problem, AutoFlow, max_steps=FLOW_STEPS, seed=seed),
}
CONSTRUCTED = "constructed: "
NAMES = ("model", "method", "seed")

Truth = tuple[dict[str, Tensor], dict[str, Moments]]
"""Draws of the reference ``{site: [n, *shape]}`` and the moments of what is judged."""


def constructed(
    problem: Problem, draws: dict[str, Tensor], seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Means and covariances around a reference's draws ``{site: [n, *shape]}``."""
    vector = UnconstrainedSpace(problem).from_values(draws).double()
    mean, covariance = vector.mean(0), torch.atleast_2d(torch.cov(vector.T))
    sd = covariance.diagonal().sqrt()
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (len(sd),), generator=generator) * 2.0 - 1
    one = torch.zeros_like(sd)
    one[int(torch.randint(0, len(sd), (), generator=generator))] = 1.0
    mean_field = torch.linalg.inv(covariance).diagonal().reciprocal().diag()
    return {
        "full": (mean, covariance),
        "mean field": (mean, mean_field),
        "marginals": (mean, (sd**2).diag()),
        "one mean off by .15": (mean + 0.15 * sd * one, covariance),
        "one mean off by .4": (mean + 0.4 * sd * one, covariance),
        "all means off by .25": (mean + 0.25 * sd * sign, covariance),
        "sds .9": (mean, 0.81 * covariance),
        "sds .7": (mean, 0.49 * covariance),
        "sds 1.4": (mean, 1.96 * covariance),
    }


ALL_CONSTRUCTED = (
    "full",
    "mean field",
    "marginals",
    "one mean off by .15",
    "one mean off by .4",
    "all means off by .25",
    "sds .9",
    "sds .7",
    "sds 1.4",
)


def gaussian(problem: Problem, mean: Tensor, covariance: Tensor) -> GaussianPosterior:
    return GaussianPosterior(
        problem,
        location=mean,
        scale_tril=torch.linalg.cholesky(covariance),
        location_error=torch.zeros_like(mean),
        engine="constructed",
        status=Status.CONVERGED,
    )


def small_regression() -> Problem:
    data = bayesian_regression.simulate(30, 4, 1)
    return Problem(bayesian_regression.model, data.features, data.target)


def of_example(example: Callable[[int], object]) -> Callable[[], Problem]:
    def build() -> Problem:
        found = example(0)
        return Problem(found.model, *found.args)  # type: ignore[attr-defined]

    return build


SHIPPED: dict[str, Callable[[], Problem]] = {
    "coin": of_example(coin.example),
    "regression": of_example(bayesian_regression.example),
    "regression, 30 rows": small_regression,
    "logistic regression": of_example(bayesian_regression.logistic_example),
    "Poisson regression": of_example(bayesian_regression.poisson_example),
    "two dice": of_example(two_dice.example),
}


@lru_cache(maxsize=1)  # the pairs of a model follow each other
def problem_and_truth(data: Path, name: str) -> tuple[Problem, Truth]:
    """A model, and what counts as true of it."""
    if name in POSTERIORS:
        posterior = POSTERIORS[name]
        problem = posterior.problem(data)
        draws = posterior.latents(posterior.reference(data))
        draws = {k: draws[k].reshape(-1, *s.shape) for k, s in problem.continuous.items()}
        return problem, (draws, reference_moments(problem, draws, REFERENCE_CHAINS))
    problem = SHIPPED[name]()
    reference = nuts(problem, num_samples=2500, num_warmup=1000, num_chains=4)
    return problem, (reference.pooled(), moments(reference, {}))


def row(data: Path, name: str, method: str, seed: int) -> Row:
    """One pair: what the judge says unaided, and how far the answer is off in truth."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    problem, truth = problem_and_truth(data, name)
    began = time.process_time()
    try:
        if method.startswith(CONSTRUCTED):
            made = constructed(problem, truth[0], seed)[method.removeprefix(CONSTRUCTED)]
            fit: Posterior = gaussian(problem, *made)
        else:
            fit = METHODS[method](problem, seed)
    except VitoolsError as error:
        return {"refused": str(error)[:200]}
    problem = fit.problem
    fitted = time.process_time()
    judgement = judge(fit, seed=seed + 1)
    judged = time.process_time()
    accuracy = measure_accuracy(
        moments(fit, quantities(problem, fit.sample(20_000, seed + 2))), truth[1]
    )
    assert accuracy is not None
    is_bad = (
        not accuracy.mean_error.value <= MEAN_LIMIT
        or not abs(accuracy.sd_ratio.value - 1) <= SD_LIMIT
    )
    correction, khat = judgement.correction, judgement.khat
    return {
        "verdict": judgement.verdict.grade.value,
        "is_bad": is_bad,
        "mean_error": accuracy.mean_error.value,
        "mean_error_at": accuracy.mean_error_at,
        "sd_ratio": accuracy.sd_ratio.value,
        "sd_ratio_at": accuracy.sd_ratio_at,
        "khat": khat.value if khat else None,
        "effective_share": judgement.weights.effective_size / len(judgement.weights.weights)
        if judgement.weights
        else None,
        "correction_mean": correction.mean_error.value if correction else None,
        "correction_sd": correction.sd_ratio.value if correction else None,
        "status": fit.status.label,
        "reason": judgement.verdict.reason,
        "advice": judgement.verdict.advice,
        "fit_seconds": round(fitted - began, 2),
        "judge_seconds": round(judged - fitted, 2),
    }


def summary(rows: list[Row]) -> str:
    judged = [r for r in rows if "verdict" in r]
    bad = [r for r in judged if r["is_bad"]]
    good = [r for r in judged if not r["is_bad"]]
    wrong = [r for r in bad if r["verdict"] == "trust"]
    right = [r for r in good if r["verdict"] == "trust"]
    share = 100 * len(right) / max(1, len(good))
    return (
        f"{len(judged)} pairs, {len(bad)} bad answers, of which {len(wrong)} trusted; "
        f"{len(good)} good answers, of which {len(right)} trusted ({share:.0f} %)"
    )


def markdown(rows: list[Row]) -> str:
    lines = [
        f"{summary(rows)}.",
        "",
        "| model | method | verdict | answer | mean error | sd ratio | k̂ | reason |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "verdict" in r:
            khat = f"{r['khat']:.2f}" if r["khat"] is not None else ""
            lines.append(
                f"| {r['model']} | {r['method']} | {r['verdict']} | {'bad' if r['is_bad'] else 'good'} "
                f"| {r['mean_error']:.2f} | {r['sd_ratio']:.2f} | {khat} | {r['reason']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = judged_tables.parser(__doc__, seeds=1)
    parser.add_argument("--methods", default="", help="engines' methods, by semicolons; none: -")
    options = parser.parse_args()
    asked = options.methods.split(";")
    methods = [name for name in METHODS if name in asked or not options.methods]
    methods = [f"{CONSTRUCTED}{name}" for name in ALL_CONSTRUCTED] + methods
    models = [name for name in POSTERIORS if (options.data / name).is_dir()] + list(SHIPPED)
    keys = [
        (name, method, seed)
        for name in models
        if options.only in name
        for seed in range(options.seeds)
        for method in methods
    ]
    compute_row = partial(row, options.data)
    judged_tables.table(
        options,
        "verdict_honesty",
        keys,
        NAMES,
        compute_row,
        markdown,
        together=len(methods),
        is_whole=not options.methods,
    )


if __name__ == "__main__":
    main()
