"""A mixture on two processes of one thread, on one process of one thread, and on one of two threads.

    python benchmarks/two_ranks.py [--rows 1000000] [--sweeps 60] [--best-of 5]

Each fit is started by torchrun, reads its part of the rows, and makes the same number of sweeps; timed is ``cavi``
alone, by the wall, in the slowest process. The three kinds take turns, so that what else the machine does meets
all of them; the best of each is compared. Needs two idle cores: a quiet machine, and nothing beside it. Fits should take
ten seconds and more (``--rows``, ``--sweeps``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from cavi_timing import report
from large_rows import mixture, rows_of

KINDS = {
    "one rank of one thread": (1, 1),
    "two ranks of one thread": (2, 1),
    "one rank of two threads": (1, 2),
}


def part(rows: int, sweeps: int, threads: int, out: Path) -> None:
    """What torchrun starts."""
    import torch.distributed as processes

    from vitools import Problem, cavi

    torch.set_num_threads(threads)
    processes.init_process_group("gloo")
    rank, size = processes.get_rank(), processes.get_world_size()
    (x,) = rows_of("mixture", rows)
    problem = Problem(mixture, x[rank::size].clone())
    processes.barrier()
    began = time.perf_counter()
    fit = cavi(problem, sharded="rows", joint=(), max_sweeps=sweeps, tol=0.0)
    seconds = time.perf_counter() - began
    mean = fit.mean()["mean"]
    found = {"s": seconds, "bound": fit.bound, "mean": mean[mean[:, 0].argsort()].tolist()}
    (out / f"rank{rank}.json").write_text(json.dumps(found))
    processes.destroy_process_group()


def fitted(ranks: int, threads: int, rows: int, sweeps: int) -> dict:
    """The slowest process's time, and the answer."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        words = [str(Path(__file__).resolve()), "--rows", str(rows), "--sweeps", str(sweeps)]
        words += ["--part", folder, "--threads", str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(
            [*launcher, f"--nproc-per-node={ranks}", *words], check=True, env=environment
        )
        found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("rank*.json"))]
    return {**found[0], "s": max(one["s"] for one in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--best-of", type=int, default=5)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.rows, options.sweeps, options.threads, options.part)
        return
    found: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for turn in range(options.best_of):
        for kind, (ranks, threads) in KINDS.items():
            found[kind].append(fitted(ranks, threads, options.rows, options.sweeps))
            print(turn, kind, found[kind][-1]["s"], flush=True)
    alone = min(one["s"] for one in found["one rank of one thread"])
    true = found["one rank of one thread"][0]
    rows = []
    for kind, fits in found.items():
        gaps = torch.tensor([one["mean"] for one in fits]) - torch.tensor(true["mean"])
        rows.append(
            {
                "fit": kind,
                "best s": min(one["s"] for one in fits),
                "worst s": max(one["s"] for one in fits),
                "times as fast": alone / min(one["s"] for one in fits),
                "bound": fits[0]["bound"],
                "largest gap of a mean": float(gaps.abs().max()),
            }
        )
    report("two_ranks", rows)


if __name__ == "__main__":
    main()
