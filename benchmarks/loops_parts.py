"""What the larger half of ``graphs/loops`` buys: processor seconds of a step of ``svi`` with parts of it left out.

    OMP_NUM_THREADS=1 python benchmarks/loops_parts.py [--steps 500] [--repeats 3] [problem …]

Side by side, in one run: the loops as they are; without groups (nests over the same rows run together in tiles,
by all threads); without columns (thin data matrices laid out for products that loops do); without either, which
leaves the core for small graphs; torch's compiler; the recorded graph, uncompiled. A step's cost is that after the
first fifty, when tracing and compiling are over, and the least of the repeats, which take turns. On one thread:
what threads add is no matter of processor seconds.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from cavi_timing import report
from svi_problems import problems

from vitools import Problem, svi
from vitools.engines.progress import Progress
from vitools.engines.svi import compiling
from vitools.graphs.loops import NotInLoops, program

STARTED = 50  # steps, after which nothing is compiled any more
NAMES = ("logistic", "vae")


def _in_turn(statements: Any, threads: int) -> list[Any]:
    return list(statements)


def _as_it_lies(node: Any, data: torch.Tensor) -> bool:
    return False


def _none(*_: Any) -> None:
    raise NotInLoops("left out to compare")


PARTS: dict[str, tuple[dict[str, Callable[..., Any]], bool]] = {
    "loops": ({}, True),
    "no groups": ({"grouped": _in_turn}, True),
    "no columns": ({"lies_better_in_columns": _as_it_lies}, True),
    "core": ({"grouped": _in_turn, "lies_better_in_columns": _as_it_lies}, True),
    "torch's compiler": ({"compile_loops": _none}, True),
    "recorded": ({}, False),
}


@contextmanager
def _without(parts: dict[str, Callable[..., Any]]) -> Iterator[None]:
    if not parts:
        yield
        return
    (name, stand_in), *rest = parts.items()
    place = compiling if name == "compile_loops" else program
    with patch.object(place, name, stand_in), _without(dict(rest)):
        yield


def step_cost(name: str, steps: int, how: bool) -> float:
    """Milliseconds of processor a step, between the first report after the start and the last."""
    model, args, make, _ = problems()[name]
    marks: list[tuple[int, float]] = []

    def mark(told: Progress) -> None:
        marks.append((told.step, time.process_time()))

    svi(
        Problem(model, *args),
        make(model),
        max_steps=steps,
        learning_rate=0.01,
        compile=how,
        progress=mark,
    )
    (first, began), *_, (last, ended) = [m for m in marks if m[0] >= STARTED]
    return 1000 * (ended - began) / (last - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=list(NAMES))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.problems:
        costs: dict[str, list[float]] = {part: [] for part in PARTS}
        for _ in range(given.repeats):
            for part, (stand_ins, how) in PARTS.items():
                with _without(stand_ins):
                    costs[part].append(step_cost(name, given.steps, how))
                print(name, part, round(costs[part][-1], 2), flush=True)
        least = {part: round(min(found), 2) for part, found in costs.items()}
        rows.append({"problem": name, "steps": given.steps, "repeats": given.repeats, **least})
    report("loops_parts", rows)


if __name__ == "__main__":
    main()
