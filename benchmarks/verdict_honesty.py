"""How honest the verdict is where no reference is at hand to check it.

    python benchmarks/verdict_honesty.py [--data ../shared/data/posteriordb] [--out benchmarks/results]
                                         [--only NAME] [--seeds 1]

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

Writes verdict_honesty.json and, as Markdown, verdict_honesty.md.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor

from vitools import Problem, cavi, nuts, svi
from vitools.diagnostics import Moments, judge, measure_accuracy, moments
from vitools.diagnostics.moments import quantities
from vitools.diagnostics.reference import reference_moments
from vitools.errors import NotSupportedError, VitoolsError
from vitools.guides import AutoFlow, AutoMeanField, AutoMultivariate
from vitools.isolation import seeded
from vitools.models import bayesian_regression, coin, two_dice
from vitools.posterior import DrawsPosterior, Posterior, Status
from vitools.unconstrained import UnconstrainedSpace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "posteriordb"))
from posteriors import POSTERIORS  # noqa: E402

MEAN_LIMIT, SD_LIMIT = 0.2, 0.25
STEPS = 6000

METHODS: dict[str, Callable[[Problem, int], Posterior]] = {
    "cavi": lambda problem, seed: cavi(problem, seed=seed),
    "normal": lambda problem, seed: svi(problem, AutoNormal, max_steps=STEPS, seed=seed),
    "normal, 200 steps": lambda problem, seed: svi(problem, AutoNormal, max_steps=200, seed=seed),
    "mean field": lambda problem, seed: svi(problem, AutoMeanField, max_steps=STEPS, seed=seed),
    "full normal": lambda problem, seed: svi(
        problem, AutoMultivariateNormal, max_steps=STEPS, seed=seed
    ),
    "multivariate": lambda problem, seed: svi(
        problem, AutoMultivariate, max_steps=STEPS, seed=seed
    ),
    "flow": lambda problem, seed: svi(problem, AutoFlow, max_steps=STEPS, seed=seed),
}

Row = dict[str, Any]


class GaussianFit(Posterior):
    """N(mean, covariance) in unconstrained space."""

    def __init__(self, problem: Problem, mean: Tensor, covariance: Tensor) -> None:
        super().__init__(problem, engine="constructed", status=Status.CONVERGED)
        self.space = UnconstrainedSpace(problem)
        self.normal = torch.distributions.MultivariateNormal(mean, covariance)

    def sample_with_log_prob(self, n: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        with seeded(seed), torch.no_grad():
            vector = self.normal.sample((n,))
            log_q = self.normal.log_prob(vector) - self.space.log_jacobian(vector)
            return self.space.to_values(vector), log_q

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        vector = self.space.from_values(values)
        return self.normal.log_prob(vector) - self.space.log_jacobian(vector)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        raise NotSupportedError("a constructed fit is not stored")

    @classmethod
    def _restore(cls, *_: Any) -> "GaussianFit":
        raise NotSupportedError("a constructed fit is not stored")


def constructed(problem: Problem, draws: dict[str, Tensor], seed: int) -> dict[str, Posterior]:
    """Gaussians around a reference's draws ``{site: [n, *shape]}``."""
    vector = UnconstrainedSpace(problem).from_values(draws).double()
    mean, covariance = vector.mean(0), torch.atleast_2d(torch.cov(vector.T))
    sd = covariance.diagonal().sqrt()
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (len(sd),), generator=generator) * 2.0 - 1
    one = torch.zeros_like(sd)
    one[int(torch.randint(0, len(sd), (), generator=generator))] = 1.0
    mean_field = torch.linalg.inv(covariance).diagonal().reciprocal().diag()
    made = {
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
    return {name: GaussianFit(problem, *moments) for name, moments in made.items()}


Truth = tuple[dict[str, Tensor], dict[str, Moments]]
"""Draws of the reference ``{site: [n, *shape]}`` and the moments of what is judged."""


def problems(data: Path, only: str = "") -> Iterator[tuple[str, Problem, Truth]]:
    """Name, problem, and what counts as true."""
    for name, posterior in POSTERIORS.items():
        if only in name and (data / name).is_dir():
            problem = posterior.problem(data)
            draws = posterior.latents(posterior.reference(data))
            draws = {k: draws[k].reshape(-1, *s.shape) for k, s in problem.continuous.items()}
            yield name, problem, (draws, reference_moments(problem, draws))
    shipped = {
        "coin": coin.example(0),
        "regression": bayesian_regression.example(0),
        "regression, 30 rows": None,
        "logistic regression": bayesian_regression.logistic_example(0),
        "Poisson regression": bayesian_regression.poisson_example(0),
        "two dice": two_dice.example(0),
    }
    for name, example in shipped.items():
        if only not in name:
            continue
        if example is None:
            small = bayesian_regression.simulate(30, 4, 1)
            problem = Problem(bayesian_regression.model, small.features, small.target)
        else:
            problem = Problem(example.model, *example.args)
        reference = nuts(problem, num_samples=2500, num_warmup=1500, num_chains=4)
        yield name, problem, (reference.pooled(), moments(reference, {}))


def fits(
    problem: Problem, truth: Truth, seed: int, chosen: list[str]
) -> Iterator[tuple[str, Callable[[], Posterior]]]:
    """Name and maker of every fit."""
    for name, fit in constructed(problem, truth[0], seed).items():
        yield f"constructed: {name}", lambda fit=fit: fit
    for name in chosen:
        yield name, lambda name=name: METHODS[name](problem, seed)


def row(name: str, method: str, make: Callable[[], Posterior], truth: Truth, seed: int) -> Row:
    """One pair: what the judge says unaided, and how far the answer is off in truth."""
    began = time.perf_counter()
    found: Row = {"model": name, "method": method, "seed": seed}
    try:
        fit = make()
    except VitoolsError as error:
        return found | {"refused": str(error)[:200]}
    problem = fit.problem
    fitted = time.perf_counter()
    judgement = judge(fit, seed=seed + 1)
    judged = time.perf_counter()
    assert not isinstance(fit, DrawsPosterior)
    draws = quantities(problem, fit.sample(20_000, seed + 2))
    accuracy = measure_accuracy(moments(fit, draws), truth[1])
    assert accuracy is not None
    is_bad = (
        not accuracy.mean_error.value <= MEAN_LIMIT
        or not abs(accuracy.sd_ratio.value - 1) <= SD_LIMIT
    )
    correction, khat = judgement.correction, judgement.khat
    return found | {
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
        "fit_seconds": fitted - began,
        "judge_seconds": judged - fitted,
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data/posteriordb")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--methods", default="", help="engines' methods, by semicolons; none: -")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    asked = options.methods.split(";")
    chosen = [name for name in METHODS if name in asked or not options.methods]
    rows: list[Row] = []
    for name, problem, truth in problems(options.data, options.only):
        for seed in range(options.seeds):
            for method, make in fits(problem, truth, seed, chosen):
                rows.append(row(name, method, make, truth, seed))
                print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    print(summary(rows))
    if not options.only and not options.methods:
        options.out.mkdir(exist_ok=True)
        (options.out / "verdict_honesty.json").write_text(json.dumps(rows, indent=1))
        (options.out / "verdict_honesty.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
