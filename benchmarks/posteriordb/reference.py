"""posteriordb as read from a folder: data, Stan's reference draws, and the Pyro model of each.

A folder holds, for each posterior, ``data.json`` and ``draws.npz`` (Stan's draws, one column a
scalar, named ``beta[1]`` …). See https://github.com/stan-dev/posteriordb.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitools import Problem

Draws = dict[str, Tensor]


def as_given(draws: Draws) -> Draws:
    return draws


@dataclass(frozen=True)
class Posterior:
    """A Pyro model of one posterior of posteriordb.

    Args:
        name: as in posteriordb.
        model: the Pyro model; its sites carry Stan's names.
        arguments: from ``data.json`` (numbers and float64 tensors) to the model's arguments.
        latents: from reference draws to values of the model's latents, where the names differ.
    """

    name: str
    model: Callable[..., Any]
    arguments: Callable[[dict[str, Any]], tuple[Any, ...]]
    latents: Callable[[Draws], Draws] = as_given

    def problem(self, folder: Path) -> Problem:
        data = json.loads((folder / self.name / "data.json").read_text())
        tensors = {
            key: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
            for key, value in data.items()
        }
        return Problem(self.model, *self.arguments(tensors))

    def reference(self, folder: Path) -> Draws:
        """Stan's draws, ``{name: [10000, *shape]}``."""
        stored = np.load(folder / self.name / "draws.npz")
        columns: dict[str, list[np.ndarray]] = {}
        for name, column in zip(stored["names"], stored["draws"].T, strict=True):
            scalar = re.fullmatch(r"(\w+)(?:\[\d+\])?", str(name))
            assert scalar is not None
            columns.setdefault(scalar[1], []).append(column)
        indexed = {str(name).partition("[")[0] for name in stored["names"] if "[" in str(name)}
        return {
            name: torch.from_numpy(np.stack(parts, -1) if name in indexed else parts[0])
            for name, parts in columns.items()
        }
