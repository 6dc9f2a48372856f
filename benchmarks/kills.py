"""Kills and interrupts runs at random moments, and looks at what they leave.

    python benchmarks/kills.py [--kills 100] [--seed 0] [--fresh]

Half of them are of ``svi``: SIGKILL, before or after the first checkpoint. The run goes on from its
checkpoint, is killed again, and so on; where it comes to its end, bounds, status and mean must be those
of a run that nobody touched, to the last bit. The others are of the commands ``fit``, ``compare`` and
``calibrate``, by SIGINT, SIGTERM and SIGKILL, at a moment drawn evenly from the processor time that they
take (what else the machine does moves no kill), with an earlier run's files in the folder or none:

- each file that is there afterwards is whole, and of the earlier or of the new run;
- Ctrl-C ends with exit code 130, SIGTERM with 143 (the kernel's own way for SIGKILL), or with that of a
  run that was done;
- unless killed, each fit that was finished is in the folder, and nothing else is left behind;
- a calibration goes on to the ranks of a run that nobody touched.

Each run is a process of its own, forked from this one so that nothing is imported a hundred times. They
go in parts of ten or fewer; each part is a row of kills.jsonl, kept as it comes, and a second call goes on
from there (``--fresh`` begins anew). The table is kills.md.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from resumable import Row, compute

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}

METHODS = ("exact", "cavi", "laplace", "normal")
"""Of the coin; each in a moment, and all of them in a second."""

COMMANDS = {
    "fit": ("fit", "coin", "--method", "normal", "--out", "out"),
    "compare": ("compare", "coin", "--methods", ",".join(METHODS), "--report", "out"),
    "calibrate": ("calibrate", "coin", "--method", "cavi", "--data-sets", "12", "--out", "out"),
}


# ---- a process of its own ----------------------------------------------------------------


def start(work: Callable[[], int], folder: Path) -> int:
    """Fork a process that does the work in the folder, what it says in ``said.txt``; its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
        os.chdir(folder)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = work()
    except KeyboardInterrupt:
        code = 71  # nobody caught it
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(process: int) -> int:
    """Its exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def processor_seconds(process: int) -> float:
    """What a process has used so far; Linux tells."""
    return time.clock_gettime((~process << 3) | 2)


def said_in(folder: Path) -> str:
    path = folder / "said.txt"
    return path.read_text(errors="replace") if path.exists() else ""


def is_over(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


# ---- svi ---------------------------------------------------------------------------------


def svi_run(checkpoint: str | None, steps: int) -> int:
    """A run on its way to ``result.json``."""
    import pyro
    import pyro.distributions as dist
    from pyro.infer.autoguide import AutoNormal

    from vitools import Problem, svi
    from vitools.engines import checkpoint as store

    store.SECONDS, store.SHARE = 0.01, 0.5  # as often as can be

    def model(y: Any) -> None:
        scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", 200, subsample_size=20) as index:
            pyro.sample("y", dist.Normal(0.0, scale), obs=y[index])

    fit = svi(
        Problem(model, torch.linspace(-3.0, 3.0, 200)),
        AutoNormal,
        max_steps=steps,
        learning_rate=0.001,
        seed=7,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        compile=False,
    )
    result = [fit.status.name, fit.history.elbo, fit.mean()["scale"].item()]
    Path("result.json").write_text(json.dumps(result))
    return 0


def kill_svi(kills: int, steps: int, moments: random.Random) -> Counter[str]:
    """Half of the kills after a checkpoint was written by the very run that is killed."""
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name, "run.ckpt")
        began = time.monotonic()
        assert end(start(lambda: svi_run(None, steps), folder)) == 0, said_in(folder)
        seconds = time.monotonic() - began
        expected = (folder / "result.json").read_text()
        while count["kills"] < kills or path.exists():
            seen = path.stat().st_mtime_ns if path.exists() else 0
            process = start(lambda: svi_run(str(path), steps), folder)
            if count["kills"] < kills:
                is_after = count["kills"] % 2 == 0
                while is_after and not is_over(process):
                    if path.exists() and path.stat().st_mtime_ns != seen:
                        break
                    time.sleep(0.001)
                time.sleep(moments.uniform(0.0, 0.1 * seconds if is_after else 0.05))
                if not is_over(process):
                    is_written = path.exists() and path.stat().st_mtime_ns != seen
                    os.kill(process, signal.SIGKILL)
                    count["after its checkpoint"] += is_written
                    count["kills"] += 1
            if end(process) == 0:  # it came to its end: again from the start
                count["ends"] += 1
                count["same numbers"] += (folder / "result.json").read_text() == expected
                path.unlink()
    return count


# ---- commands ----------------------------------------------------------------------------


def command(words: tuple[str, ...]) -> int:
    """``vitools`` in this process."""
    from vitools.cli import main

    sys.argv = ["vitools", *words]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def prepare() -> None:
    """Load all that the commands load, and let them note in ``finished.txt`` each fit that was made."""
    from vitools.cli.methods import Method

    torch.set_num_threads(1)  # forked processes cannot use another's threads
    run = Method.run

    def told(self: Method, *args: Any, **options: Any) -> Any:
        fit = run(self, *args, **options)
        with open("finished.txt", "a") as file:
            file.write(f"{self.label}\n")
        return fit

    Method.run = told  # type: ignore[method-assign]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        open("said.txt", "w") as said,
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        for words in COMMANDS.values():
            command(words)


def is_whole(path: Path) -> bool:
    """Whether a file that vitools writes can be read to its end."""
    import arviz
    from matplotlib.image import imread

    from vitools.files.archive import read_archive

    try:
        if path.suffix == ".jsonl":  # a line that is cut short is done again
            whole, _, _ = path.read_text().rpartition("\n")
            return all(json.loads(line) for line in whole.splitlines())
        if path.suffix == ".json":
            return bool(json.loads(path.read_text()))
        if path.suffix == ".safetensors":
            return bool(read_archive(path))
        if path.suffix == ".nc":
            data = arviz.from_netcdf(path)
            return bool(data.posterior.sizes)
        if path.suffix == ".png":
            return imread(path).size > 0
        end_of = {".html": "</html>", ".csv": "\n"}[path.suffix]
        return path.read_text().rstrip(" \n").endswith(end_of.strip()) and path.stat().st_size > 0
    except Exception as error:  # whatever a reader says of half a file
        print(f"{path.name}: {error}")
        return False


def stored(out: Path) -> set[str]:
    """The names of the fits in a folder, in whichever file."""
    import arviz

    from vitools.files.archive import read_archive

    found = {arviz.from_netcdf(path).attrs.get("fit", "") for path in out.glob("posterior*.nc")}
    for path in out.glob("*.safetensors"):
        read_archive(path)
        found.add(path.stem.replace("_", " "))
    return found


def kill_command(name: str, number: signal.Signals, kills: int, moments: random.Random) -> Row:
    """By one signal: how many, how they ended, what was amiss."""
    words = COMMANDS[name]
    row: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as top:
        first = Path(top, "first")
        first.mkdir()
        process = start(lambda: command(words), first)
        _, status, used = os.wait4(process, 0)
        done, seconds = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        assert done in (0, 1), said_in(first)
        complete = {path.name for path in (first / "out").iterdir()}
        ranks = sorted((first / "out").glob("*.jsonl"))
        for i in range(kills):
            folder = Path(top, f"run{i}")
            folder.mkdir()
            has_earlier = i % 2 == 1 and not ranks
            if has_earlier:
                shutil.copytree(first / "out", folder / "out")
            process = start(lambda: command(words), folder)
            moment = moments.uniform(0.0, 1.05 * seconds)
            while not is_over(process) and processor_seconds(process) < moment:
                time.sleep(0.002)
            row["kills"] += 1
            if not is_over(process):
                os.kill(process, number)
            code = end(process)
            said = said_in(folder)
            row["done before"] += code == done
            faults = []
            if code not in (done, CODES[number]):
                faults.append(f"exit code {code}")
            if "Traceback" in said:
                faults.append("a traceback")
            out = folder / "out"
            there = (
                [path for path in out.iterdir() if not path.name.startswith(".")]
                if out.is_dir()
                else []
            )
            faults += [f"half of {path.name}" for path in there if not is_whole(path)]
            hidden = [path for path in folder.rglob(".*") if path.name != "."]
            if hidden and number == signal.SIGKILL:
                row["hidden folder left"] += 1
            elif hidden:
                faults.append(f"left {hidden[0].name}")
            if number != signal.SIGKILL and not ranks:
                finished = _lines(folder / "finished.txt")
                row["fits finished"] += len(finished)
                kept = stored(out) if out.is_dir() else set()
                if name == "fit":  # its two files go by no label
                    kept |= set(finished) if (out / "fit.safetensors").exists() else set()
                faults += [f"{label} lost" for label in finished if label not in kept]
            if code == done and not {path.name for path in there} >= complete:
                faults.append("done, but not all is there")
            if ranks:  # go on to the end: the same as if nobody had touched it
                row["ends"] += 1
                again = end(start(lambda: command(words), folder))
                same = (out / ranks[0].name).read_text() == ranks[0].read_text()
                row["same numbers"] += same
                if again != done or not same:
                    faults.append(f"went on to code {again}, same ranks: {same}")
            for fault in faults:
                row["faults"] += 1
                print(f"{name}, {number.name}, run {i}: {fault}\n{said}", flush=True)
    return {key: row[key] for key in KEYS}


KEYS = (
    "kills",
    "done before",
    "fits finished",
    "ends",
    "same numbers",
    "hidden folder left",
    "faults",
)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


NAMES = ("of", "by", "seed", "part", "of kills")


def parts(kills: int, seed: int, share: int = 10) -> list[tuple[Any, ...]]:
    """So many kills, half of them of svi, as keys of rows."""
    of_svi = kills // 2
    keys = [
        ("svi", "SIGKILL", seed, i, min(share, of_svi - i * share))
        for i in range(-(-of_svi // share))
    ]
    pairs = [(name, number.name) for number in CODES for name in COMMANDS]
    fewest, more = divmod(kills - of_svi, len(pairs))
    counts = [fewest + (i < more) for i in range(len(pairs))]
    return keys + [
        (*pair, seed, 0, count) for pair, count in zip(pairs, counts, strict=True) if count
    ]


def row(of: str, by: str, seed: int, part: int, kills: int, *, steps: int = 2000) -> Row:
    moments = random.Random(f"{of} {by} {seed} {part}")
    if of != "svi":
        return kill_command(of, signal.Signals[by], kills, moments)
    found = kill_svi(kills, steps, moments)
    faults = found["ends"] - found["same numbers"]
    after = found["after its checkpoint"]
    return {**{key: found[key] for key in KEYS}, "after its checkpoint": after, "faults": faults}


def trial(kills: int, seed: int, path: Path) -> list[Row]:
    """A row for each part; those that the file has are not done again."""
    return compute(path, parts(kills, seed), NAMES, row, workers=1)


def summary(rows: list[Row]) -> str:
    """Markdown: the parts of a kind added up."""
    columns = ("kills", "after its checkpoint", *KEYS[1:])
    lines = [
        f"| of | by | {' | '.join(columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    kinds = dict.fromkeys((found["of"], found["by"]) for found in rows)
    for kind in [*kinds, ("all", "")]:
        own = [found for found in rows if kind in ((found["of"], found["by"]), ("all", ""))]
        sums = [str(sum(found.get(column, 0) for found in own)) for column in columns]
        lines.append(f"| {' | '.join((*kind, *sums))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    options = parser.parse_args()
    store = options.out / "kills.jsonl"
    if options.fresh:
        store.unlink(missing_ok=True)
    prepare()
    words = summary(trial(options.kills, options.seed, store))
    print(words)
    store.with_suffix(".md").write_text(words, encoding="utf-8")


if __name__ == "__main__":
    main()
