"""The four columns of Table 1 of Burda, Grosse & Salakhutdinov (ICLR 2016), end to end.

    python benchmarks/vae_mnist.py FOLDER [--fraction 0.001] [--columns vae1 iwae2 …] [--k 1 5 50]

FOLDER holds the four MNIST files. VAE and IWAE, with one stochastic layer (784-200-200-50) or two
(784-200-200-100-100-100-50), by k = 1, 5, 50 draws; tanh, batches of 20, Adam with ε = 1e-4 (on the
gradient of the mean bound), 3^i epochs at the rate 0.001 · 10^(-i/7) for i = 0 … 7: 3280 epochs. The
images are binarised anew, P(x = 1) = intensity, at every epoch; the test images once, by
``--seed``. NLL: minus the importance-weighted bound by ``--samples`` draws.

``--fraction`` shortens every stage alike. The state is kept in ``--checkpoints``; a run that was
ended goes on from there, to the same numbers. A row is written as soon as it is measured, and says
which share of the schedule, how many test images and how many draws it stands for.
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cavi_timing import RESULTS, report
from torch import Tensor

from vitools import Problem
from vitools.archive import read_archive, write_archive
from vitools.data import read_idx
from vitools.engines.ascent import BLOCK
from vitools.engines.objectives import Elbo, ImportanceWeighted
from vitools.engines.svi_run import Options, Run
from vitools.isolation import isolated, seeded
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import VAE, average, importance_weighted_log_likelihood
from vitools.models.vae.base import DeepModel

BATCH = 20
STAGES = 8
PUBLISHED = {
    "vae1": {1: 86.76, 5: 86.47, 50: 86.35},
    "iwae1": {1: 86.76, 5: 85.54, 50: 84.78},
    "vae2": {1: 85.33, 5: 85.01, 50: 84.78},
    "iwae2": {1: 85.33, 5: 83.89, 50: 82.90},
}


def read(folder: Path, name: str, device: str) -> Tensor:
    """Intensities [n, 784] from 0 to 1."""
    names = [folder / f"{name}-images-idx3-ubyte{end}" for end in ("", ".gz")]
    counts = torch.tensor(read_idx(next(path for path in names if path.is_file())))
    return (counts.flatten(1).float() / 255).to(device)


def network(column: str, intensities: Tensor, seed: int) -> DeepModel:
    if column.endswith("1"):
        model: DeepModel = VAE(784, 50, hidden=(200, 200), seed=seed)
    else:
        model = HierarchicalVAE(784, (100, 50), ((200, 200), (100, 100)), seed=seed)
    last = [module for module in model.decoder.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():  # the pixels start at their mean intensity
        last.bias.copy_(torch.logit(intensities.mean(0).clamp(1e-3, 1 - 1e-3)))
    return model.to(intensities.device)


def stages(fraction: float, steps_per_epoch: int) -> list[tuple[float, int]]:
    """Rate and last step of each stage, whole blocks of steps."""
    found, done = [], 0
    for i in range(STAGES):
        done += BLOCK * max(1, round(fraction * 3**i * steps_per_epoch / BLOCK))
        found.append((0.001 * 10 ** (-i / 7), done))
    return found


class Training:
    """One cell of the table."""

    def __init__(self, column: str, k: int, intensities: Tensor, options: Any) -> None:
        self.intensities, self.seed = intensities, options.seed
        self.images = torch.empty_like(intensities)
        self.binarise(0)
        self.model = network(column, intensities, options.seed)
        self.steps_per_epoch = len(intensities) // BATCH
        self.stages = stages(options.fraction, self.steps_per_epoch)
        self.total = self.stages[-1][1]
        if column.startswith("iwae") and k > 1:
            objective: Any = ImportanceWeighted(k, gradient="pathwise")
        else:
            objective = Elbo(k)
        epsilon = 1e-4 * len(intensities)  # the bound is that of all images
        optimizer = partial(torch.optim.Adam, lr=0.001, eps=epsilon)
        chosen = Options(
            1, objective, self.total, None, optimizer, None, 0, options.compile, options.seed
        )
        problem = Problem(self.model.model, self.images, BATCH)
        self.run = Run(problem, self.model.guide, chosen, None)

    def binarise(self, epoch: int) -> None:
        """New binary images in the old ones' memory, which the recorded step reads."""
        device = self.images.device
        generator = torch.Generator(device).manual_seed(1000 * self.seed + epoch)
        for part, chances in zip(
            self.images.split(5000), self.intensities.split(5000), strict=True
        ):
            part.copy_(torch.bernoulli(chances, generator=generator))

    def train(self, path: Path, identity: dict[str, Any]) -> tuple[float, float]:
        """All steps; seconds spent, and the mean bound of an image over the last hundredth."""
        done, seconds, recent = 0, 0.0, []
        ascent = self.run.ascent
        if path.exists():
            header, tensors = read_archive(path)
            if header["identity"] != identity:
                raise SystemExit(f"{path} is of another run: {header['identity']}")
            done, seconds, recent = header["done"], header["seconds"], header["recent"]
            tensors = {name: tensor.to(self.images.device) for name, tensor in tensors.items()}
            ascent.restore(tensors, header["ascent"])
            self.binarise(done // self.steps_per_epoch)
        began = written = time.perf_counter()
        earlier = seconds
        while done < self.total:
            rate = next(rate for rate, end in self.stages if done < end)
            for group in ascent.optimizer.param_groups:  # type: ignore[attr-defined]
                group["lr"] = rate
            bounds = self.run.advance(done)
            if (done + BLOCK) // self.steps_per_epoch > done // self.steps_per_epoch:
                self.binarise((done + BLOCK) // self.steps_per_epoch)
            done += BLOCK
            recent = [*recent, *bounds][-max(100, self.total // 100) :]
            now = time.perf_counter()
            if now - written > 60 or done == self.total:
                seconds, written = earlier + now - began, now
                state, numbers = ascent.state()
                kept = {"done": done, "seconds": seconds, "recent": recent, "ascent": numbers}
                write_archive(path, {"identity": identity, **kept}, state)
                print(f"  {done} of {self.total} steps, {seconds:.0f} s", flush=True)
        return seconds, sum(recent) / len(recent) / len(self.images)


def measure(column: str, k: int, train: Tensor, test: Tensor, options: Any) -> dict[str, Any]:
    print(f"{column}, k = {k}", flush=True)
    identity = {"column": column, "k": k, "fraction": options.fraction, "seed": options.seed}
    identity["images"] = len(train)
    path = options.checkpoints / f"{column}-{k}-{options.fraction:g}.ckpt"
    with seeded(options.seed), isolated():
        training = Training(column, k, train, options)
        try:
            seconds, bound = training.train(path, identity)
        finally:
            training.run.compiling.close()
        log_likelihood = importance_weighted_log_likelihood(
            training.model, test, num_samples=options.samples, seed=options.seed
        )
    held_out = average(log_likelihood.value)
    return {
        "column": column,
        "k": k,
        "published": PUBLISHED[column][k],
        "NLL": -held_out.value,
        "error": held_out.standard_error,
        "test images": len(test),
        "draws": options.samples,
        "epochs": training.total / training.steps_per_epoch,
        "share of schedule": options.fraction,
        "training bound": bound,
        "hours": seconds / 3600,
        "images/s": BATCH * training.total / seconds,
        "device": options.device,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--columns", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    parser.add_argument("--k", nargs="+", type=int, choices=[1, 5, 50], default=[1, 5, 50])
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--train-images", type=int, default=60_000)
    parser.add_argument("--checkpoints", type=Path, default=Path("vae_mnist"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--uncompiled", dest="compile", action="store_const", const=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(compile="auto")
    options = parser.parse_args()
    if not math.isfinite(options.fraction) or not 0 < options.fraction <= 1:
        parser.error("--fraction: expected a share of the schedule, above 0 and at most 1")
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    train = read(options.folder, "train", options.device)[: options.train_images]
    test = read(options.folder, "t10k", options.device)
    generator = torch.Generator(options.device).manual_seed(options.seed)
    test = torch.bernoulli(test, generator=generator)[: options.test_images]
    path = RESULTS / "vae_mnist.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for column in options.columns:
        for k in options.k:
            if k == 1 and column.startswith("iwae"):
                continue  # by one draw the two bounds are the same
            row = measure(column, k, train, test, options)
            same = ("column", "k", "share of schedule", "test images", "draws", "device")
            rows = [r for r in rows if any(r[key] != row[key] for key in same)] + [row]
            report("vae_mnist", rows)


if __name__ == "__main__":
    main()
