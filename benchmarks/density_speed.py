"""What one compiled density saves: milliseconds a point against torch's vmap, and whole fits.

    OMP_NUM_THREADS=1 python benchmarks/density_speed.py [--points 512] [--rounds 5]

"gradients" and "products" (with the Hessian) are of points near a start, compiled and by vmap in
turns; medians of rounds, "x" the median ratio within a round. "ready s" is the first call: recording
and, where the machine has not seen the program before, compiling. Then seconds of whole calls, which
decide for themselves whether compiling repays (it is counted), and with compiling switched off: log joints of draws from the prior, ``dadvi``, and the
search that ``svi`` starts from.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from cavi_timing import report
from svi_problems import problems

from vitools import Problem, dadvi
from vitools.guides import AutoMeanField
from vitools.problem.coordinates.density import Density
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

NAMES = ("regression", "schools", "dice-kumaraswamy", "logistic")
NEVER = 10.0**30


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def turns(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Medians of the first, the second and of their ratio, after one call each."""
    ready = seconds(one)
    other()
    pairs = [(seconds(one), seconds(other)) for _ in range(rounds)]
    return {
        "compiled": statistics.median(a for a, _ in pairs),
        "vmap": statistics.median(b for _, b in pairs),
        "x": statistics.median(b / a for a, b in pairs),
        "ready s": ready,
    }


def never(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same without compiling."""

    def plain() -> Any:
        with (
            patch("vitools.problem.density.vectorise.WORTH_RECORDING", NEVER),
            patch("vitools.problem.coordinates.density.WORTH_RECORDING", NEVER),
        ):
            return run()

    return plain


def densities(name: str, problem: Problem, count: int, rounds: int) -> list[dict[str, Any]]:
    space = UnconstrainedSpace(problem)
    centre = space.initial_point(0)
    generator = torch.Generator().manual_seed(1)
    points = centre + 0.1 * torch.randn((count, space.size), generator=generator)
    compiled, plain = (Density(space.log_density_at, centre, problem, many) for many in (10**12, 0))
    pairs = {
        "gradients": (lambda: compiled.gradients(points), lambda: plain.gradients(points)),
        "products": (
            lambda: compiled.products(points, points),
            lambda: plain.products(points, points),
        ),
    }
    rows = []
    for what, (one, other) in pairs.items():
        found = turns(one, other, rounds)
        for key in ("compiled", "vmap"):
            found[key] *= 1000 / count
        rows.append({"problem": name, "ms a point": what, **found})
    return rows


def fits(name: str, problem: Problem) -> list[dict[str, Any]]:
    values = {k: v for k, v in problem.prior(10_000).items() if k in problem.drawn}
    runs: dict[str, Callable[[], Any]] = {
        "log_joint, 10 000 draws": lambda: problem.log_joint(values),
        "dadvi": lambda: dadvi(problem),
        "search": lambda: AutoMeanField(problem.model).initialise_near_mode(problem),
    }
    rows = []
    for what, run in runs.items():
        taken, plain = seconds(run), seconds(never(run))
        found = {"compiled": taken, "vmap": plain, "x": plain / taken}
        rows.append({"problem": name, "seconds of": what, **found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        model, args, _, _ = problems()[name]
        doubles = (a.double() if a.is_floating_point() else a for a in args)
        problem = Problem(model, *doubles)
        rows += densities(name, problem, options.points, options.rounds)
        rows += fits(name, problem)
    report("density_speed", rows)


if __name__ == "__main__":
    main()
