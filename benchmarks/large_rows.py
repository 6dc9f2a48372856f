"""Rows in files: memory beyond the imports at 5 million rows × 20 columns, and seconds a pass by rows.

    python benchmarks/large_rows.py [--rows 5000000] [--passes 100000 1000000]

The table of memory: parquet files are converted, read, fitted on minibatches by ``cavi`` and ``svi``, weighed
and replicated in one process, whose anonymous memory (``RssAnon``: what no file stands behind) is read every
20 ms. The table of passes: ``cavi(batch_rows=N / 100)`` on N rows, three passes, beside a fit that sees all rows at
once to its end. One thread.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from cavi_timing import report

COLUMNS = 20
FILES = 5


def anonymous_megabytes() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("RssAnon"))


class Stages:
    """Seconds and peak memory of one stage after another."""

    def __init__(self) -> None:
        self.base = self.peak = anonymous_megabytes()
        self.rows: list[dict[str, Any]] = []
        self.began = time.perf_counter(), time.process_time()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, anonymous_megabytes())
            time.sleep(0.02)

    def end(self, stage: str) -> None:
        now = time.perf_counter(), time.process_time()
        self.rows.append(
            {
                "stage": stage,
                "seconds": now[0] - self.began[0],
                "CPU seconds": now[1] - self.began[1],
                "beyond the imports MB": self.peak - self.base,
            }
        )
        self.peak, self.began = anonymous_megabytes(), now


def write_rows(folder: Path, rows: int) -> None:
    """Parquet files of a regression's rows."""
    import pyarrow
    from pyarrow import parquet

    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(COLUMNS - 1, generator=generator, dtype=torch.float64)
    for number in range(FILES):
        x = torch.randn(rows // FILES, COLUMNS - 1, generator=generator, dtype=torch.float64)
        y = x @ weights + 0.5 * torch.randn(len(x), generator=generator, dtype=torch.float64)
        columns = {f"x{j}": x[:, j].numpy() for j in range(COLUMNS - 1)}
        table = pyarrow.table({**columns, "y": y.numpy()})
        parquet.write_table(table, folder / f"part-{number}.parquet")


def regression(x: torch.Tensor, y: torch.Tensor, subsample_size: int | None = None) -> None:
    zeros = torch.zeros(x.shape[1], dtype=torch.float64)
    w = pyro.sample("w", dist.Normal(zeros, 1.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(torch.tensor(1.0, dtype=torch.float64), 1.0))
    with pyro.plate("rows", len(y), subsample_size=subsample_size) as index:
        if subsample_size is not None:
            x, y = x[index], y[index]
        pyro.sample("y", dist.Normal(x @ w, tau.rsqrt()), obs=y)


def memory(folder: Path) -> None:
    """In a process of its own."""
    from vitools import Problem, cavi, judge, svi
    from vitools.data import open_table
    from vitools.guides import AutoMultivariate

    torch.set_num_threads(1)
    small = torch.zeros(20, COLUMNS - 1, dtype=torch.float64)
    cavi(Problem(regression, small, small[:, 0]), max_sweeps=2)  # what is loaded on first use
    stages = Stages()
    columns = {"x": [f"x{j}" for j in range(COLUMNS - 1)], "y": "y"}
    table = open_table(folder / "*.parquet", columns)
    stages.end("open_table: convert and map")
    problem = Problem(regression, **table.tensors)
    stages.end("Problem")
    fit = cavi(problem, batch_rows=50_000, nested=())
    stages.end(f"cavi, {len(fit.history)} passes")
    some = Problem(regression, **table.tensors, subsample_size=1000)
    svi(some, AutoMultivariate, max_steps=200, compile=False)
    stages.end("svi, 200 steps of 1000 rows")
    fit.log_weights(4)
    stages.end("weights of 4 draws, all rows")
    fit.predictive(1)
    stages.end("1 replication of all rows")
    print(judge(fit).verdict.reason, file=sys.stderr)
    stages.end("judge, on a sample of rows")
    print(json.dumps(stages.rows))


def mixture(x: torch.Tensor) -> None:
    one = torch.ones((), dtype=torch.float64)
    with pyro.plate("components", 5):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(4).double(), 10 * one).to_event(1))
        tau = pyro.sample("tau", dist.Gamma(one, one))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(5, dtype=torch.float64)))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        spread = tau[z].rsqrt().unsqueeze(-1)
        pyro.sample("x", dist.Normal(mean[z], spread).to_event(1), obs=x)


def logistic(x: torch.Tensor, group: torch.Tensor, y: torch.Tensor) -> None:
    one = torch.ones((), dtype=torch.float64)
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), one).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(2 * one, one))
    with pyro.plate("groups", 50):
        u = pyro.sample("u", dist.Normal(0 * one, tau.rsqrt()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + u[group]), obs=y)


def rows_of(model: str, rows: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    part = torch.randint(5, (rows,), generator=generator)
    if model == "mixture":
        centres = 3 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
        return (centres[part] + x,)
    group = torch.randint(50, (rows,), generator=generator)
    effect = 0.5 * torch.randn(50, generator=generator, dtype=torch.float64)
    logits = x[:, :3].sum(1) + effect[group]
    y = (torch.rand(rows, generator=generator, dtype=torch.float64) < logits.sigmoid()).double()
    return x[:, :3].contiguous(), group, y


def passes(model: str, rows: int) -> None:
    """In a process of its own."""
    from vitools import Problem, cavi

    torch.set_num_threads(1)
    problem = Problem({"mixture": mixture, "logistic": logistic}[model], *rows_of(model, rows))
    start = time.process_time()
    fit = cavi(problem, batch_rows=rows // 100, max_sweeps=3, restarts=5, nested=(), joint=())
    seconds = time.process_time() - start
    start = time.process_time()
    whole = cavi(problem, nested=(), joint=(), restarts=5 if model == "mixture" else 1)
    print(
        json.dumps(
            {
                "model": model,
                "rows": rows,
                "batches": 100,
                "CPU seconds a pass": seconds / 3,
                "bound after 3 passes": fit.bound,
                "bound of all at once": whole.bound,
                "relative gap": (whole.bound - fit.bound) / abs(whole.bound),
                "CPU seconds of all at once": time.process_time() - start,
            }
        )
    )


def alone(*words: str) -> Any:
    """What another process of this script prints last."""
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="0 for no table of memory")
    parser.add_argument("--passes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--memory", type=Path)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.memory:
        memory(options.memory)
        return
    if options.one:
        passes(options.one[0], int(options.one[1]))
        return
    if options.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder), options.rows)
            report("large_rows_memory", alone("--memory", folder))
    table = [
        alone("--one", model, str(rows))
        for model in ("mixture", "logistic")
        for rows in options.passes
    ]
    if table:
        report("large_rows_passes", table)


if __name__ == "__main__":
    main()
