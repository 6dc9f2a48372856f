"""What the benchmarks of the judge share: their options, their store, and the table made of it."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resumable import Row, compute

HERE = Path(__file__).resolve().parent


def parser(description: str | None, *, seeds: int) -> argparse.ArgumentParser:
    """The options that all of them take."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data/posteriordb")
    made.add_argument("--out", type=Path, default=HERE / "results")
    made.add_argument("--only", default="", help="models or targets whose name contains this")
    made.add_argument("--seeds", type=int, default=seeds)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--fresh", action="store_true", help="forget what is stored")
    return made


def table(
    options: argparse.Namespace,
    name: str,
    keys: Sequence[tuple[Any, ...]],
    names: tuple[str, ...],
    row: Callable[..., Row],
    words: Callable[[list[Row]], str],
    *,
    together: int = 1,
    is_whole: bool = True,
) -> None:
    """Compute what is missing of the rows of ``keys``, print them in words, and write ``name``.md.

    Args:
        words: of rows, in Markdown.
        together: keys in a row that share something costly.
        is_whole: whether these are all rows, as the file has them.
    """
    store = options.out / f"{name}.jsonl"
    if options.fresh:
        store.unlink(missing_ok=True)
    began = time.perf_counter()
    rows = compute(store, keys, names, row, options.workers, together)
    print(f"{words(rows)}\n{time.perf_counter() - began:.0f} s")
    if is_whole and not options.only:
        store.with_suffix(".md").write_text(words(rows), encoding="utf-8")
