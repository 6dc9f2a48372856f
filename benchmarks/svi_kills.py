"""Kills a run 50 times at random moments and compares its numbers with an undisturbed one.

    python benchmarks/svi_kills.py [--kills 50]

The run is killed with SIGKILL, resumed from its checkpoint, killed again, and so on, and begun again
where it came to its end; there bounds, parameters and status must be those of a run that nobody
touched, to the last bit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cavi_timing import report

RUN = """
import json, sys
import pyro, torch
import pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal
from vitools import Problem, svi
from vitools.engines.svi.svi import checkpoint

checkpoint.SECONDS, checkpoint.SHARE = 0.01, 0.5

def model(y):
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", 200, subsample_size=20) as index:
        pyro.sample("y", dist.Normal(0.0, scale), obs=y[index])

path, out, steps = sys.argv[1:]
problem = Problem(model, torch.linspace(-3.0, 3.0, 200))
fit = svi(problem, AutoNormal, max_steps=int(steps), learning_rate=0.001, seed=7,
          checkpoint=path or None, resume=bool(path))
with open(out, "w") as file:
    json.dump([fit.status.name, fit.history.elbo, fit.mean()["scale"].item()], file)
"""


def start(checkpoint: str, out: Path, steps: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, checkpoint, str(out), str(steps)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        out, path = Path(folder, "out.json"), Path(folder, "run.ckpt")
        start("", out, options.steps).wait()
        expected = out.read_text()
        kills, ends, same = 0, 0, True
        while kills < options.kills or path.exists():
            process = start(str(path), out, options.steps)
            seen = path.stat().st_mtime_ns if path.exists() else 0
            while (
                kills < options.kills
                and process.poll() is None
                and not (path.exists() and path.stat().st_mtime_ns != seen)
            ):
                time.sleep(0.001)
            time.sleep(moments.uniform(0.0, 0.03))
            if kills < options.kills and process.poll() is None:
                process.kill()
                process.wait()
                kills += 1
            elif process.wait() == 0:  # it came to its end, after some kills: again from the start
                same = same and json.loads(out.read_text()) == json.loads(expected)
                ends += 1
                path.unlink()
    length = len(json.loads(expected)[1])
    report("svi_kills", [{"kills": kills, "runs": ends, "steps": length, "identical": same}])


if __name__ == "__main__":
    main()
