"""What a killed run of coordinate ascent goes on from: the states of its runs as tensors, and numbers.

Of a state every tensor is kept: natural parameters, from which the rest follows, and the rest, so that not
even its rounding changes. A resumed run makes its model and starts anew, which costs what it cost before, and
goes on from the last whole sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from vitools.calculus import ConjugateModel
from vitools.calculus.model import State
from vitools.engines.cavi.batch import each
from vitools.engines.cavi.coordinate_ascent import CaviRun, CoordinateAscent, Schedule
from vitools.engines.cavi.moves import Moves
from vitools.engines.checkpoint import Checkpoint
from vitools.engines.progress import Listener
from vitools.errors import OptionError
from vitools.posterior import History, Posterior, Status
from vitools.problem import Problem

Tensors = dict[str, Tensor]


def checkpoint_of(
    problem: Problem,
    path: str | Path | None,
    resume: bool,
    options: Mapping[str, Any],
    data: str | None = None,
) -> Checkpoint | None:
    """The file, which knows the run by its problem and options; None where none is wanted.

    Args:
        data: a digest of the data, where they are not all in the problem.
    """
    if path is None:
        if resume:
            raise OptionError("resume=True needs checkpoint=, the file to go on from.")
        return None
    start = options.get("start")
    described = {name: _in_words(value) for name, value in options.items()}
    if isinstance(start, Posterior):
        described["start"] = f"a fit by {start.engine} ({start.fingerprint})"
    digest = problem.fingerprint if data is None else data
    identity = {"problem": f"'{problem.name}' with data {digest}", **described}
    return Checkpoint(path, {"engine": "cavi", **identity})


def _in_words(value: Any) -> Any:
    return value if isinstance(value, int | float | bool | None) else str(value)


class Keeper:
    """Keeps the runs of ``cavi()`` in a file, where one is wanted, and takes them up again."""

    def __init__(self, file: Checkpoint | None, resume: bool):
        self.file = file
        saved = file.read() if file is not None and resume else None
        self._tensors: Tensors = {} if saved is None else saved[0]
        self._numbers: dict[str, Any] | None = None if saved is None else saved[1]

    @property
    def seconds(self) -> float:
        """How long the run that is taken up had gone on."""
        return 0.0 if self._numbers is None else float(self._numbers["seconds"])

    def earlier(self, moves: Moves, seeds: Sequence[int]) -> tuple[list[CaviRun], list[int]]:
        """The runs that were finished, and the seeds of the others."""
        if self._numbers is None:
            return [], list(seeds)
        runs = []
        for i, run in enumerate(self._numbers["runs"]):
            state = self._state(f"run{i}", moves, 1)
            history = History.of_rows([(bound, at) for bound, at in run["rows"]])
            runs.append(CaviRun(state, Status[run["status"]], history))
        return runs, list(seeds)[len(seeds) - self._numbers["seeds_left"] :]

    def take_up(self, ascent: CoordinateAscent) -> None:
        """Put the ascent where it was."""
        if self._numbers is None or self._numbers["ascent"] is None:
            return
        numbers = self._numbers["ascent"]
        self._numbers["ascent"] = None  # those after it begin at their starts
        count = len(numbers["active"])
        ascent.rows = [(at, {int(k): b for k, b in found.items()}) for at, found in numbers["rows"]]
        ascent.reached = replace(
            ascent.reached,
            active=tuple(numbers["active"]),
            state=self._state("active", ascent.moves, count) if count else [],
            finished={
                number: self._state(f"finished{number}", ascent.moves, 1)
                for number in numbers["finished"]
            },
            rows=len(ascent.rows),
            **{name: self._tensors[name] for name in ("bound", "limit", "warming")},
        )

    def after(
        self, ascent: CoordinateAscent, runs: Sequence[CaviRun], left: Sequence[int]
    ) -> Callable[[int], None] | None:
        """What is called after every sweep."""
        file = self.file
        if file is None:
            return None

        def write(done: int) -> None:
            if file.is_due and not ascent.is_cut_short:
                self._write(file, runs, len(left) + ascent.count, ascent)

        return write

    def keep(self, ascent: CoordinateAscent, runs: Sequence[CaviRun], left: Sequence[int]) -> None:
        """Keep an ascent at its end, or where it was interrupted."""
        if self.file is not None and ascent.reached.rows and not ascent.is_cut_short:
            self._write(self.file, runs, len(left) + ascent.count, ascent)

    def _write(
        self, file: Checkpoint, runs: Sequence[CaviRun], left: int, ascent: CoordinateAscent | None
    ) -> None:
        tensors: Tensors = {}
        numbers: dict[str, Any] = {"runs": [], "seeds_left": left, "ascent": None, "seconds": 0.0}
        for i, run in enumerate(runs):
            tensors |= _named(f"run{i}", run.state)
            rows = list(zip(run.history.elbo, run.history.seconds, strict=True))
            numbers["runs"].append({"status": run.status.name, "rows": rows})
            numbers["seconds"] = rows[-1][1]
        if ascent is not None:
            at = ascent.reached
            tensors |= _named("active", at.state)
            for number, state in at.finished.items():
                tensors |= _named(f"finished{number}", state)
            tensors |= {"bound": at.bound, "limit": at.limit, "warming": at.warming}
            swept = ascent.rows[: at.rows]
            numbers["ascent"] = {
                "active": list(at.active),
                "finished": list(at.finished),
                "rows": swept,
            }
            numbers["seconds"] = swept[-1][0]
        file.write(tensors, numbers)

    def _state(self, name: str, moves: Moves, count: int) -> State:
        """The state of so many runs, every tensor as it was."""
        naturals = [
            tuple(_in_order(self._tensors, f"{name}/natural{i}/"))
            for i in range(len(moves.model.blocks))
        ]
        made = each(count, moves.restored, naturals)
        leaves, spec = tree_flatten(made)
        kept = _in_order(self._tensors, f"{name}/leaf/")
        if [x.shape for x in leaves] == [x.shape for x in kept]:
            made = tree_unflatten(kept, spec)
        assert isinstance(made, list)
        return made


def _named(name: str, state: State) -> Tensors:
    found: Tensors = {}
    for i, block in enumerate(state):
        for j, eta in enumerate(block["natural"]):
            found[f"{name}/natural{i}/{j:06d}"] = eta
    leaves, _ = tree_flatten(state)
    found |= {f"{name}/leaf/{j:06d}": leaf for j, leaf in enumerate(leaves)}
    return found


def _in_order(tensors: Mapping[str, Tensor], prefix: str) -> list[Tensor]:
    names: Iterable[str] = sorted(name for name in tensors if name.startswith(prefix))
    return [tensors[name] for name in names]


def flattened(naturals: Mapping[str, Sequence[Tensor]], prefix: str) -> Tensors:
    """Natural parameters by block, in the order of the blocks."""
    return {
        f"{prefix}/{i}/{j:06d}": eta
        for i, parts in enumerate(naturals.values())
        for j, eta in enumerate(parts)
    }


def unflattened(
    tensors: Mapping[str, Tensor], prefix: str, titles: Iterable[str]
) -> dict[str, tuple[Tensor, ...]]:
    """The inverse, for blocks of these titles."""
    return {title: tuple(_in_order(tensors, f"{prefix}/{i}/")) for i, title in enumerate(titles)}


def climb(
    model: ConjugateModel,
    seeds: Sequence[int],
    schedule: Schedule,
    initialise: Callable[[int], object],
    progress: Listener | None,
    began: float,
    keeper: Keeper,
) -> tuple[list[CaviRun], bool]:
    """A run from each seed, as far as an interrupt lets it, and whether there was one."""
    moves = Moves(model, settled=schedule.inner_sweeps is None)
    runs, seeds = keeper.earlier(moves, seeds)
    interrupted = False
    try:
        while seeds and not interrupted:
            ascent = CoordinateAscent(model, seeds, schedule, initialise)
            keeper.take_up(ascent)
            seeds = seeds[ascent.count :]
            status = ascent.run(progress, began, keeper.after(ascent, runs, seeds))
            keeper.keep(ascent, runs, seeds)
            runs = runs + ascent.runs(status)
            interrupted = status is Status.INTERRUPTED
    except KeyboardInterrupt:  # while a later start was made ready
        interrupted = True
    if not runs:
        raise KeyboardInterrupt  # not one sweep was finished: there is no fit to keep
    return runs, interrupted
