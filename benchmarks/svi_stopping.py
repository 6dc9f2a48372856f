"""Does the stopping rule end runs at the right place? Many seeds, against runs of fixed length.

    python benchmarks/svi_stopping.py [--seeds 20] [--only NAME] [--workers 1] [--fresh]

Every fit is made with default options, and its bound compared, on the same draws, with the best
that longer runs reach from where it ended: 5000 steps at a fifth of the first step size, and 2000 at
the whole of it before such 5000. So each run is held against its own optimum, where there are several.
With the rule's resolution r (.2 nats, or .01 a latent where that is more) and three standard errors,

    early   it says that it converged, and is more than r below;
    late    it took more than 4000 steps, and cut at half of them it was within r already.

Beside it stand runs of fixed length at the first step size, by the average of their tail. A run
that starts far off along a ridge is there to be refused: no rule could end it well in 20 000 steps.

Two cases are posteriordb's, whose data are read from ../shared/data/posteriordb. Each row is kept
in results/svi_stopping.jsonl as it comes, and a second call goes on from there (``--fresh`` begins
anew); the table is results/svi_stopping.md.
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from vitools import Posterior, Problem, Status, svi
from vitools.engines.loop import iterate
from vitools.engines.svi.svi_run import Options, SviRun
from vitools.guides import (
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
    AutoMultivariate,
)
from vitools.isolation import seeded, snapshot
from vitools.models import SHIPPED, coin
from vitools.posterior import GuidePosterior

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DATA = HERE.parents[1] / "shared" / "data" / "posteriordb"
sys.path[:0] = [str(HERE), str(HERE / "posteriordb")]
from posteriors import POSTERIORS  # noqa: E402
from resumable import compute  # noqa: E402

DRAWS = 2000
PATIENCE = 4000
LIMIT = 20_000
FIXED = (1000, 4000, 8000)
CONTINUED = ((0, 5000), (2000, 5000))  # steps at the first step size, then at a fifth of it


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


def stored(name: str) -> Problem:
    return POSTERIORS[name].problem(DATA)


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
    "log earnings, mean field": Case(
        lambda: stored("earnings-logearn_interaction_z"), AutoMeanField, {}
    ),
    "kids' scores from the prior": Case(
        lambda: stored("kidiq-kidscore_interaction"), AutoMeanField, {"start": "guide"}
    ),
}


def bound(fit: Posterior) -> tuple[float, float]:
    estimate = fit.elbo(DRAWS, seed=12345)
    return estimate.value, estimate.standard_error


class Fixed:
    """A run without the rule, and the bound of its averaged iterates at any time."""

    def __init__(self, problem: Problem, guide: Any, seed: int, **options: Any) -> None:
        start = options.get("start")
        chosen = Options(1, None, LIMIT, None, None, None, 0, True, seed)
        self.seed, self.done = seed, 0
        with seeded(seed):
            self.run = SviRun(problem, guide, chosen, start)

    def go(self, steps: int) -> None:
        """On to ``steps`` steps in all."""
        with seeded(self.seed):
            iterate(
                self.run.advance,
                lambda bounds, seconds: None,
                max_steps=steps,
                engine="svi",
                done=self.done,
                began=0.0,
            )
        self.done = steps

    def shorten(self) -> None:
        """A fifth of the step size, as the rule does."""
        self.run.rule.reduce_learning_rate()

    def bound(self) -> float:
        run = self.run
        before = [value.clone() for value in run.ascent.values]
        run.place_average(whole_stage=False)
        state = snapshot(run.params)
        run.ascent.place(before)
        stopped = Status.STOPPED_AT_LIMIT
        return bound(GuidePosterior(run.problem, run.guide, state, engine="svi", status=stopped))[0]

    def close(self) -> None:
        self.run.compiling.close()


def continued(problem: Problem, fit: GuidePosterior, seed: int) -> float:
    """The best bound that longer runs reach from where ``fit`` ended."""
    ended = [parameter.detach().clone() for parameter in fit.guide.parameters()]
    found = []
    for whole, small in CONTINUED:
        with torch.no_grad():
            for parameter, value in zip(fit.guide.parameters(), ended, strict=True):
                parameter.copy_(value)
        more = Fixed(problem, fit.guide, 1000 + seed)
        more.go(whole)
        more.shorten()
        more.go(whole + small)
        found.append(more.bound())
        more.close()
    return max(found)


def fixed(problem: Problem, case: Case, seed: int) -> list[float]:
    """Bounds of a run at the first step size after FIXED steps."""
    found, run = [], Fixed(problem, case.guide, seed, **case.options)
    for steps in FIXED:
        run.go(steps)
        found.append(run.bound())
    run.close()
    return found


def one(name: str, seeds: int) -> dict[str, Any]:
    """The row of a case, of seeds 0 to ``seeds`` - 1."""
    case = CASES[name]
    problem = case.problem()
    numbers = sum(site.shape.numel() for site in problem.drawn.values())
    resolution = max(0.2, 0.01 * numbers)
    steps, converged, early, late, deficits, errors, others = [], 0, 0, 0, [], [], []
    for seed in range(seeds):

        def run(seed: int = seed, **options: Any) -> GuidePosterior:
            return svi(problem, case.guide, seed=seed, compile=True, **case.options, **options)

        fit = run()
        value, error = bound(fit)
        best = max(value, continued(problem, fit, seed))
        allowed = resolution + 3 * error
        count = len(fit.history)
        if fit.status is Status.CONVERGED:
            converged += 1
            early += best - value > allowed
            if count > PATIENCE:
                late += best - bound(run(max_steps=count // 2))[0] <= allowed
        steps.append(count)
        deficits.append(best - value)
        errors.append(error)
        others.append([best - found for found in fixed(problem, case, seed)])
    return {
        "runs": seeds,
        "converged": converged,
        "steps": [min(steps), int(statistics.median(steps)), max(steps)],
        "resolution": resolution,
        "early": early,
        "late": late,
        "deficit": [statistics.median(deficits), max(deficits)],
        "fixed steps": list(FIXED),
        "fixed deficit": [
            [statistics.median(column), max(column)] for column in zip(*others, strict=True)
        ],
        "bound error": max(errors),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    lengths = "".join(f"{steps} steps | " for steps in FIXED)
    lines = [
        "| model and guide | runs | converged | steps: least, median, most | early | late "
        f"| nats below its optimum: median, worst | {lengths}error |",
        "|---|---|---|---|---|---|---|" + "---|" * (len(FIXED) + 1),
    ]
    for r in rows:
        least, median, most = r["steps"]
        others = "".join(f"{median:.2f}, {worst:.2f} | " for median, worst in r["fixed deficit"])
        lines.append(
            f"| {r['case']} | {r['runs']} | {r['converged']} | {least}, {median}, {most} "
            f"| {r['early']} | {r['late']} | {r['deficit'][0]:.2f}, {r['deficit'][1]:.2f} "
            f"| {others}{r['bound error']:.2f} |"
        )
    runs, converged, early, late = (
        sum(r[key] for r in rows) for key in ("runs", "converged", "early", "late")
    )
    lines += [
        "",
        f"Of {runs} runs {converged} say that they converged: {early} of them early, {late} late. "
        "The columns of steps are runs of that length, median and worst.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    store = RESULTS / "svi_stopping.jsonl"
    if options.fresh:
        store.unlink(missing_ok=True)
    keys = [(name,) for name in CASES if options.only in name]
    rows = compute(store, keys, ("case",), partial(one, seeds=options.seeds), options.workers)
    print(markdown(rows))
    if not options.only:
        (RESULTS / "svi_stopping.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
