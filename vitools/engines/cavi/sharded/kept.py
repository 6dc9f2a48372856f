"""What a killed run on several processes goes on from, on as many or another number of them.

A state is the factors of what all rows share: the factors of single rows follow from them, wherever these
are. Factors that are not at their optimum at once (topics of words and of their documents) begin there afresh,
so that a resumed run ends in the same optimum, to its tolerance, and not by the same sweeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitools.engines.cavi.batch import each
from vitools.engines.cavi.coordinate_ascent import CaviRun, CoordinateAscent
from vitools.engines.cavi.kept import flattened, unflattened
from vitools.engines.cavi.minibatches.steps import Naturals, naturals
from vitools.engines.cavi.sharded.start import Begun
from vitools.engines.checkpoint import Checkpoint
from vitools.posterior import History, Status

Kept = tuple[dict[str, Tensor], dict[str, Any]]


class SharedKeeper:
    """Keeps a run in a file of the first process, and hands what is kept to all.

    Args:
        saved: what all processes go on from; None to begin.
    """

    def __init__(self, file: Checkpoint | None, begun: Begun, saved: Kept | None):
        self.file, self.begun = file, begun
        self._tensors, self._numbers = saved or ({}, {})

    @property
    def seconds(self) -> float:
        """How long the run that is taken up had gone on."""
        return float(self._numbers.get("seconds", 0.0))

    def earlier(self) -> list[CaviRun]:
        """The starts that were run to their end."""
        found = []
        for i, run in enumerate(self._numbers.get("runs", [])):
            self.begun.enter(self._naturals(f"run{i}"))
            rows = [(bound, at) for bound, at in run["rows"]]
            status = Status[run["status"]]
            found.append(CaviRun(self.begun.model.state(), status, History.of_rows(rows)))
        return found

    def take_up(self, ascent: CoordinateAscent) -> None:
        """Put the ascent where it was."""
        numbers = self._numbers.pop("ascent", None)
        if numbers is None:
            return
        self.begun.enter(self._naturals("active"))
        state = self.begun.model.state()
        ascent.rows = [(at, {0: bound}) for at, bound in numbers["rows"]]
        ascent.reached = replace(
            ascent.reached,
            state=state,
            bound=each(1, ascent.moves.bound, state),
            limit=torch.tensor([numbers["limit"]], dtype=torch.float64),
            warming=torch.tensor([numbers["warming"]]),
            rows=len(ascent.rows),
        )

    def after(
        self, ascent: CoordinateAscent, runs: Sequence[CaviRun]
    ) -> Callable[[int], None] | None:
        """What is called after every sweep."""
        file = self.file
        if file is None:
            return None

        def write(done: int) -> None:
            if file.is_due and not ascent.is_cut_short:
                self._write(file, runs, ascent)

        return write

    def keep(self, ascent: CoordinateAscent, runs: Sequence[CaviRun], status: Status) -> None:
        """Keep an ascent at its end, or where it was interrupted."""
        if self.file is None or not ascent.reached.rows or ascent.is_cut_short:
            return
        done = status is Status.CONVERGED
        self._write(
            self.file, [*runs, *ascent.runs(status)] if done else runs, None if done else ascent
        )

    def _write(
        self, file: Checkpoint, runs: Sequence[CaviRun], ascent: CoordinateAscent | None
    ) -> None:
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, Any] = {"runs": []}
        for i, run in enumerate(runs):
            tensors |= flattened(self._shared(run.state), f"run{i}")
            rows = list(zip(run.history.elbo, run.history.seconds, strict=True))
            numbers["runs"].append({"status": run.status.name, "rows": rows})
            numbers["seconds"] = rows[-1][1]
        if ascent is not None:
            at = ascent.reached
            tensors |= flattened(self._shared(at.state), "active")
            numbers["ascent"] = {
                "rows": [(seconds, bounds[0]) for seconds, bounds in ascent.rows[: at.rows]],
                "limit": float(at.limit),
                "warming": bool(at.warming),
            }
            numbers["seconds"] = ascent.rows[at.rows - 1][0]
        file.write(tensors, numbers)

    def _shared(self, state: Any) -> Naturals:
        model = self.begun.model
        return {
            block.title: own["natural"]
            for block, own in zip(model.parts, state, strict=True)
            if model.is_shared(block)
        }

    def _naturals(self, prefix: str) -> Naturals:
        titles = list(naturals(self.begun.model))
        return unflattened(self._tensors, prefix, titles)
