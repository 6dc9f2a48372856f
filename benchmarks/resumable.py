"""A long benchmark as a table of rows, computed in parallel and kept as they come.

Every row is a line of JSON, appended when it is done; a run that was interrupted goes on where it
was, and a row can be done again by deleting its line.
"""

import json
import multiprocessing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    """What is stored; a line that an interruption cut short is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text("utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def compute(
    path: Path,
    keys: Iterable[tuple[Any, ...]],
    names: tuple[str, ...],
    row: Callable[..., Row],
    workers: int,
    together: int = 1,
) -> list[Row]:
    """All rows of ``keys``, in their order; those not in the file are computed and added to it.

    Args:
        keys: what tells rows apart, e.g. ``(model, method)``; ``names`` are their columns.
        row: from a key's parts to the rest of the row.
        workers: processes, each on one thread.
        together: keys in a row that one process takes, where they share something costly.
    """
    keys = list(keys)
    done = {tuple(r[name] for name in names): r for r in rows(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    _rewrite(path, done.values())
    missing = [key for key in keys if key not in done]
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    with context.Pool(workers, initializer=_begin, initargs=(path, row, names)) as pool:
        for found in pool.imap_unordered(_compute, missing, chunksize=together):
            done[tuple(found[name] for name in names)] = found
    return [done[key] for key in keys]


def _rewrite(path: Path, kept: Iterable[Row]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept), "utf-8")


_job: Any = None  # what a forked process inherits


def _begin(path: Path, row: Callable[..., Row], names: tuple[str, ...]) -> None:
    global _job
    _job = path, row, names
    torch.set_num_threads(1)


def _compute(key: tuple[Any, ...]) -> Row:
    path, row, names = _job
    found = dict(zip(names, key, strict=True)) | row(*key)
    line = json.dumps(found, ensure_ascii=False)
    with path.open("a", encoding="utf-8") as file:  # a short line is written whole or not at all
        file.write(line + "\n")
    print(line[:400], flush=True)
    return found
