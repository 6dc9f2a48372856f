"""Kills coordinate ascent at random moments, of one process and under torchrun, and compares where it comes to.

    python benchmarks/kills_of_cavi.py [--kills 30] [--seed 0] [--fresh]

Three kinds of run, each killed as often: all rows at once and ``batch_rows`` in one process, ``sharded`` in two
or three processes of torchrun, of which one is killed, chosen at random. SIGKILL comes before or after the first
checkpoint of the very run that is killed; the next run goes on from its file, under torchrun on another number
of processes. Where a run comes to its end, bound and means must be those of one that nobody touched: to the last
bit in one process, to 1e-9 where rows are divided otherwise than before. The runs sleep between their sweeps, so
that there is something to kill.

They go in parts of five kills; each is a row of kills_of_cavi.jsonl, kept as it comes, and a second call goes on
from there (``--fresh`` begins anew). The table is kills_of_cavi.md.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from kills import end, is_over, said_in, start
from resumable import Row, compute

KINDS = ("all rows", "batch_rows", "torchrun")
NAMES = ("of", "seed", "part", "kills")
PART = 5
ROWS = 600
PAUSE = 0.05
PATIENCE = 300.0
WARNING = "another of the"


def problem(rank: int = 0, size: int = 1) -> Any:
    """A mixture, of which a process has its part of the rows."""
    import pyro
    import pyro.distributions as dist

    from vitools import Problem

    one = torch.ones((), dtype=torch.float64)

    def mixture(y: torch.Tensor) -> None:
        with pyro.plate("components", 3):
            mu = pyro.sample("mu", dist.Normal(0 * one, 10 * one))
            tau = pyro.sample("tau", dist.Gamma(one, one))
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)

    noise = torch.randn(ROWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([-2.0, 0.0, 2.5], dtype=torch.float64)[torch.arange(ROWS) % 3] + noise
    return Problem(mixture, y[rank::size])


def run(checkpoint: Path | None, **options: Any) -> int:
    """A run on its way to ``result.json``."""
    from vitools import cavi
    from vitools.engines import checkpoint as store
    from vitools.engines import loop

    store.SECONDS, loop.REPORT_EVERY = 0.0, 0.0  # as often as can be

    def slowly(_: object) -> None:
        time.sleep(PAUSE)

    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    fit = cavi(
        problem(rank, size),
        tol=1e-12,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        progress=slowly,
        **options,
    )
    if rank == 0:
        mean = fit.mean()
        order = mean["mu"].argsort()  # labels are free, and follow the order of the rows
        means = {name: mean[name][order].tolist() for name in ("mu", "tau", "weights")}
        Path("result.json").write_text(json.dumps([fit.status.name, fit.bound, means]))
    return 0


def one_of_several(checkpoint: str) -> int:
    """What torchrun starts."""
    import torch.distributed as processes

    torch.set_num_threads(1)
    processes.init_process_group("gloo", timeout=timedelta(seconds=60))
    Path(f"pid{processes.get_rank()}").write_text(str(os.getpid()))
    code = run(Path(checkpoint), sharded="rows")
    processes.destroy_process_group()
    return code


class Alone:
    """Runs of one process."""

    def __init__(self, folder: Path, moments: random.Random, **options: Any):
        self.folder, self.options = folder, options

    def start(self, checkpoint: Path | None) -> None:
        self.process = start(lambda: run(checkpoint, **self.options), self.folder)

    def is_over(self) -> bool:
        return is_over(self.process)

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)

    def end(self) -> int:
        return end(self.process)

    @staticmethod
    def agrees(found: Any, expected: Any) -> bool:
        return found == expected


class Several:
    """Runs of two or three processes, started by torchrun, of which one is killed."""

    def __init__(self, folder: Path, moments: random.Random):
        self.folder, self.moments = folder, moments

    def start(self, checkpoint: Path | None) -> None:
        self.size = self.moments.choice((2, 3))
        for file in self.folder.glob("pid*"):
            file.unlink()
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        words = [f"--nproc-per-node={self.size}", str(Path(__file__).resolve()), "--rank-of"]
        with (self.folder / "said.txt").open("w") as said:
            self.process = subprocess.Popen(
                [*launcher, *words, str(checkpoint or "whole.ckpt")],
                cwd=self.folder, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        files = sorted(self.folder.glob("pid*"))
        if files:
            os.kill(int(self.moments.choice(files).read_text()), signal.SIGKILL)
        else:  # before one of them was there
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    @staticmethod
    def agrees(found: Any, expected: Any) -> bool:
        numbers = [
            torch.tensor(
                [bound, *(x for mean in means.values() for x in mean)], dtype=torch.float64
            )
            for _, bound, means in (found, expected)
        ]
        return found[0] == expected[0] and torch.allclose(*numbers, rtol=1e-9, atol=1e-9)


def row(of: str, seed: int, part: int, kills: int) -> Row:
    """So many kills, half of them after a checkpoint was written by the very run that is killed."""
    moments = random.Random(f"{of} {seed} {part}")
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name, "run.ckpt")
        alone = Alone(folder, moments)
        runs: Alone | Several = alone
        if of == "torchrun":
            runs = Several(folder, moments)
        elif of == "batch_rows":
            runs = alone = Alone(folder, moments, batch_rows=100)
        alone.start(None)
        assert alone.end() == 0, said_in(folder)
        expected = json.loads((folder / "result.json").read_text())
        while count["killed"] < kills or path.exists():
            seen = path.stat().st_mtime_ns if path.exists() else 0

            runs.start(path)
            if count["killed"] < kills:
                is_after = count["killed"] % 2 == 0
                while is_after and not runs.is_over() and not _is_new(path, seen):
                    time.sleep(0.001)
                time.sleep(moments.uniform(0.0, 20 * PAUSE))
                if not runs.is_over():
                    written = _is_new(path, seen)
                    runs.kill()
                    count["after its checkpoint"] += written
                    count["killed"] += 1
            code = runs.end()
            count["said why"] += of == "torchrun" and WARNING in said_in(folder)
            if code == 0:
                count["ends"] += 1
                found = json.loads((folder / "result.json").read_text())
                count["same answer"] += runs.agrees(found, expected)
                path.unlink()
    return dict(count)


def _is_new(path: Path, seen: int) -> bool:
    """Whether the file has been written since."""
    return path.exists() and path.stat().st_mtime_ns != seen


COLUMNS = ("killed", "after its checkpoint", "said why", "ends", "same answer")


def summary(rows: list[Row]) -> str:
    """Markdown: the parts of a kind added up."""
    lines = [f"| of | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for kind in KINDS:
        own = [found for found in rows if found["of"] == kind]
        sums = [str(sum(found.get(column, 0) for found in own)) for column in COLUMNS]
        lines.append(f"| {' | '.join((kind, *sums))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    parser.add_argument("--rank-of", metavar="CHECKPOINT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        raise SystemExit(one_of_several(options.rank_of))
    torch.set_num_threads(1)
    problem()  # what is imported on first use
    store = options.out / "kills_of_cavi.jsonl"
    if options.fresh:
        store.unlink(missing_ok=True)
    keys = [
        (kind, options.seed, part, min(PART, options.kills - PART * part))
        for kind in KINDS
        for part in range(-(-options.kills // PART))
    ]
    words = summary(compute(store, keys, NAMES, row, workers=1))
    print(words)
    store.with_suffix(".md").write_text(words, encoding="utf-8")


if __name__ == "__main__":
    main()
