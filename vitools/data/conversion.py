"""Columns of many files as one flat file for each argument, written once and mapped from then on.

    cache/NAME/
        meta.json     what is converted, from which files as they were, and what was found
        y.values      the numbers of argument y, rows in turn; y.mask where values are missing

``NAME`` is a digest of the files' names, the columns and what becomes of missing values. A cache whose
files have changed since (in size or time) is made anew. It appears whole or not at all.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from vitools._version import __version__
from vitools.data.cells import Kind
from vitools.data.survey import (
    Survey,
    length_of,
    opened,
    pieces_of,
    stored_values,
    survey,
)
from vitools.errors import DataError, FileError
from vitools.missing import MissingPolicy

FORMAT = 1
META = "meta.json"
EVERY = 2.0
"""Seconds between two words on how far a conversion is."""

Say = Callable[[str], None]
Chosen = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Request:
    """What is to be converted, and where to."""

    paths: tuple[Path, ...]
    chosen: Chosen
    missing: MissingPolicy
    cache: Path
    labels: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> list[str]:
        """The columns, each once."""
        return list(dict.fromkeys(name for names in self.chosen.values() for name in names))

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        described = [
            [os.fspath(path.resolve()) for path in self.paths],
            dict(self.chosen),
            self.missing,
            {name: list(labels) for name, labels in self.labels.items()},
        ]
        digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:12]
        return self.cache / f"{self.paths[0].stem}-{digest}"

    def stamp(self) -> list[list[Any]]:
        """By which a file is known to be as it was."""
        stats = [path.stat() for path in self.paths]
        return [
            [path.name, s.st_size, s.st_mtime_ns] for path, s in zip(self.paths, stats, strict=True)
        ]


def converted(request: Request, say: Say | None) -> tuple[Path, dict[str, Any]]:
    """The folder of the flat files and what is known of them, written now if they are not there."""
    folder, stamp = request.folder, request.stamp()
    meta = _current(folder, stamp)
    if meta is not None:
        return folder, meta
    found = survey(request.paths, request.names, _watch(request, say, "looking at"), request.labels)
    _refuse_gaps(request, found)
    _refuse_mixture(request, found)
    aside = folder.with_name(f".{folder.name}-{uuid4().hex[:8]}")
    try:
        aside.mkdir(parents=True)
        meta = _write(request, found, aside, _watch(request, say, "converting"))
        if request.stamp() != stamp:
            raise DataError(
                f"{request.paths[0].parent}: files changed while they were read; try again when they "
                "are whole"
            )
        meta |= {"format": FORMAT, "version": __version__, "stamp": stamp}
        (aside / META).write_text(json.dumps(meta), "utf-8")
        _replace(aside, folder, stamp)
    except OSError as error:
        raise FileError(
            f"cannot write the converted columns into '{request.cache}': {error.strerror or error}. "
            "Name another folder: cache=."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder, meta


def _current(folder: Path, stamp: list[list[Any]]) -> dict[str, Any] | None:
    """What is known of a folder whose files are those of today; None where it has to be written."""
    try:
        meta = json.loads((folder / META).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if meta.get("format") != FORMAT or meta.get("stamp") != stamp:
        return None
    for argument, kept in meta["arguments"].items():
        size = int(np.prod(kept["shape"], dtype=np.int64)) * np.dtype(kept["dtype"]).itemsize
        file = folder / f"{argument}.values"
        if not file.is_file() or file.stat().st_size != size:
            return None
    return dict(meta)


def _replace(aside: Path, folder: Path, stamp: list[list[Any]]) -> None:
    """Put the folder in its place; where another process was first, its folder stays."""
    if folder.exists() and _current(folder, stamp) is None:
        shutil.rmtree(folder)
    try:
        os.rename(aside, folder)
    except OSError:
        if _current(folder, stamp) is None:
            raise


def _refuse_gaps(request: Request, found: Survey) -> None:
    gaps = {name: column for name, column in found.columns.items() if column.gaps}
    if not gaps or request.missing != "refuse":
        return
    name, first = next(iter(gaps.items()))
    counts = ", ".join(f"{name} {column.gaps}" for name, column in gaps.items())
    raise DataError(
        f"{first.first_gap}, column {name!r}: missing (blank, NA, NaN or the like); in all {counts}. "
        "Fill it in, or choose: --missing drop (missing='drop') leaves out rows that lack a value, "
        "--missing mask tells a model's argument 'mask' where they are"
    )


def _refuse_mixture(request: Request, found: Survey) -> None:
    """Words, and rows that are arrays, have no place beside other columns in one argument."""
    for argument, names in request.chosen.items():
        for name in names if len(names) > 1 else ():
            column = found.columns[name]
            if column.kind is Kind.WORDS or column.shape:
                got = "words" if column.kind is Kind.WORDS else f"arrays {list(column.shape or ())}"
                raise DataError(
                    f"{found.paths[0]}, column {name!r}: {got}, which cannot stand beside columns of "
                    f"numbers in '{argument}'. Name its columns, each by --columns "
                    f"{argument}=COLUMN, or columns={{'{argument}': [...]}}"
                )


def _write(
    request: Request, found: Survey, folder: Path, watch: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """The second pass: every column in the type that the first has found."""
    kept_rows: list[int] = []
    dropped: list[int] = []
    done = 0
    with ExitStack() as stack:
        files = {
            argument: stack.enter_context((folder / f"{argument}.values").open("wb"))
            for argument in request.chosen
        }
        gaps = {
            argument: stack.enter_context((folder / f"{argument}.mask").open("wb"))
            for argument in request.chosen
            if request.missing == "mask"
        }
        for number, (_, source) in enumerate(opened(found.paths, request.names)):
            kept_rows.append(0)
            for piece in pieces_of(source, request.names):
                count = length_of(piece)
                keep: np.ndarray | None = None
                if request.missing == "drop":
                    lacking = [p.missing.reshape(count, -1).any(1) for p in piece.values()]
                    keep = ~np.any(lacking, axis=0)
                    dropped += (done + np.flatnonzero(~keep)).tolist()
                for argument, names in request.chosen.items():
                    parts = [stored_values(piece[n], found.columns[n]) for n in names]
                    _append(files[argument], parts, _dtype(found, names), keep)
                    if argument in gaps:
                        there = [~piece[n].missing for n in names]
                        _append(gaps[argument], there, np.dtype(bool), None)
                done += count
                kept_rows[-1] += count if keep is None else int(keep.sum())
                if watch is not None:
                    watch(done, number)
    if not sum(kept_rows):
        raise DataError(
            f"{found.paths[0].parent}: every row lacks a value, so none is left to fit; leave that "
            "column out, or fill it in"
        )
    np.save(folder / "dropped.npy", np.array(dropped, np.int64))
    return {
        "paths": [os.fspath(path) for path in found.paths],
        "rows": list(found.rows),
        "kept": kept_rows,
        "dropped": len(dropped),
        "arguments": {
            argument: {
                "dtype": _dtype(found, names).str,
                "shape": [sum(kept_rows), *_row_shape(found, names)],
            }
            for argument, names in request.chosen.items()
        },
        "labels": {
            argument: list(found.columns[names[0]].labels)
            for argument, names in request.chosen.items()
            if found.columns[names[0]].kind is Kind.WORDS
        },
        "missing": {
            argument: total
            for argument, names in request.chosen.items()
            if (total := sum(found.columns[n].gaps for n in names))
        },
    }


def _append(
    file: Any, parts: Sequence[np.ndarray], dtype: np.dtype, keep: np.ndarray | None
) -> None:
    values = parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)
    values = values if keep is None else values[keep]
    file.write(np.ascontiguousarray(values, dtype).data)


def _dtype(found: Survey, names: Sequence[str]) -> np.dtype:
    return np.result_type(*(found.columns[name].stored for name in names))


def _row_shape(found: Survey, names: Sequence[str]) -> tuple[int, ...]:
    shape = found.columns[names[0]].shape or ()
    return shape if len(names) == 1 else (*shape, len(names))


def _watch(request: Request, say: Say | None, what: str) -> Callable[[int, int], None] | None:
    """Says in words how far a pass is, now and then."""
    if say is None:
        return None
    sizes = [path.stat().st_size for path in request.paths]
    last = time.monotonic()

    def watch(rows: int, number: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            total = f"{sum(sizes) / 1e9:.2f} GB" if sum(sizes) > 1e7 else f"{sum(sizes)} bytes"
            say(
                f"{what} {request.paths[0].parent}: {rows} rows, file {number + 1} of {len(sizes)} "
                f"({total} in all)"
            )

    return watch
