"""Checkpoints of a run: one archive, whole or absent, that a killed run goes on from.

It holds the run's tensors, numbers and identity. Noise needs no place in it: every block of steps seeds its own.
"""

import json
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from vitools._version import __version__
from vitools.errors import FileError
from vitools.files.archive import read_archive, write_archive
from vitools.files.atomic import check_folder

FORMAT = 3
SECONDS = 1.0  # between two checkpoints, at least
SHARE = 0.05  # of the time of a run, at most, spent on writing


class Checkpoint:
    """A file to write the state of a run to now and then.

    Args:
        identity: what makes the run the same run: problem, guide and options. A file with
            another identity is refused.
    """

    def __init__(self, path: str | Path, identity: dict[str, Any]) -> None:
        self.path = Path(path)
        check_folder(self.path.parent)
        self.identity = json.loads(json.dumps(identity))
        self.written, self.cost = time.perf_counter(), 0.0

    @property
    def is_due(self) -> bool:
        return time.perf_counter() - self.written > max(SECONDS, self.cost / SHARE)

    def write(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Replace the file by this state."""
        began = time.perf_counter()
        header = {
            "kind": "checkpoint",
            "format": FORMAT,
            "version": __version__,
            "identity": self.identity,
            "numbers": numbers,
        }
        write_archive(self.path, header, tensors)
        self.written = time.perf_counter()
        self.cost = self.written - began

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state in the file, or None where there is no file yet.

        Raises:
            FileError: the file is torn, no checkpoint, or that of another run.
        """
        if not self.path.exists():
            return None
        header, tensors = read_archive(self.path)
        if header.get("kind") != "checkpoint":
            raise FileError(
                f"'{self.path}' is a saved fit, not a checkpoint. Give checkpoint= another path."
            )
        if header.get("format") != FORMAT:
            raise FileError(
                f"'{self.path}' is a checkpoint of vitools {header.get('version')} in format "
                f"{header.get('format')}; this is vitools {__version__}, which reads format "
                f"{FORMAT}. Begin anew with resume=False."
            )
        for name, mine in self.identity.items():
            found = header["identity"].get(name)
            if found != mine:
                raise FileError(
                    f"'{self.path}' is a checkpoint of another run: its {name} is {found}, here "
                    f"it is {mine}. Give checkpoint= another path, or begin anew with resume=False."
                )
        return tensors, header["numbers"]
