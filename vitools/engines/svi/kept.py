"""What a run of ``svi`` goes on from, and the file that holds it."""

from typing import Any, NamedTuple

from torch import Tensor

from vitools.engines.checkpoint import Checkpoint
from vitools.engines.svi.stopping import StopState
from vitools.posterior import History, Status


class Kept(NamedTuple):
    """All that a run goes on from, after ``done`` steps; no later step changes any of it."""

    done: int
    ascent: tuple[dict[str, Tensor], dict[str, Any]]
    seen: StopState
    objective: dict[str, Tensor]
    stepped_back: int
    ended: Status | None
    """What the stopping rule said."""

    def write(self, file: Checkpoint, history: History) -> None:
        """Put all of it into ``file``, which :meth:`SviRun.restore` reads."""
        (tensors, numbers), (rule_tensors, rule_numbers) = self.ascent, self.seen.parts()
        parts = {
            "ascent": tensors,
            "rule": rule_tensors,
            "history": history.tensors(),
            "objective": self.objective,
        }
        file.write(
            {f"{part}/{k}": v for part, found in parts.items() for k, v in found.items()},
            {
                "ascent": numbers,
                "rule": rule_numbers,
                "stepped_back": self.stepped_back,
                "ended": None if self.ended is None else self.ended.name,
            },
        )
