"""The four columns of Table 1 of Burda, Grosse & Salakhutdinov (ICLR 2016), end to end.

    python benchmarks/vae_mnist.py FOLDER [--columns vae1 iwae2 …] [--k 1 5 50] [--stages 8]

FOLDER holds the four MNIST files. VAE and IWAE, with one stochastic layer (784-200-200-50) or two
(784-200-200-100-100-100-50), by k = 1, 5, 50 draws; tanh, Glorot weights, batches of 20, Adam with
ε = 1e-4 (on the gradient of the mean bound), 3^i epochs at the rate 0.001 · 10^(-i/7) for i = 0 … 7:
3280 epochs. The 60 000 images are binarised anew, P(x = 1) = intensity, at every epoch; the 10 000
test images once, by ``--seed``. Unlike in the paper each minibatch is drawn from all images.

``--stages`` ends the schedule after its first stages: 5 are the first 121 epochs; ``--fraction``
shortens every stage alike. The state is kept in ``--checkpoints``: a run that was ended goes on
there to the same numbers, one of fewer stages with more.

NLL is minus the importance-weighted bound by S = ``--samples`` draws, averaged over the test images.
A few of them (``--images-by-samples``) are enough, as the second term varies little:

    NLL = mean over all of NLL_100 + mean over the few of (NLL_S - NLL_100)

"error" is that of the second term, against S draws of all images; "over images" that of their choice.

A row is written as soon as it is measured, with its part of the schedule. ``--profile`` trains
nothing and tells what a step of each cell costs, in ``vae_mnist_steps.json``.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from cavi_timing import report
from torch import Tensor
from vae_mnist_table import FEW_DRAWS, PUBLISHED, STAGES, Row, keep

from vitools import Adam, Problem
from vitools.data import read_idx
from vitools.engines import Stages
from vitools.engines.objectives import ImportanceWeighted
from vitools.engines.svi.optimisers.ascent import BLOCK
from vitools.engines.svi.svi_run import Options, SviRun
from vitools.files.archive import read_archive, write_archive
from vitools.isolation import isolated, seeded
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import VAE, average, importance_weighted_log_likelihood
from vitools.models.vae.base import DeepModel

BATCH = 20
RATE = 0.001
Program = Callable[..., None]


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


def stage_ends(fraction: float, steps_per_epoch: int) -> list[int]:
    """The last step of each stage, whole blocks of steps."""
    lengths = [round(fraction * 3**i * steps_per_epoch / BLOCK) for i in range(STAGES)]
    return [BLOCK * sum(max(1, n) for n in lengths[: i + 1]) for i in range(STAGES)]


def by_draws(program: Program, k: int) -> Program:
    """``program`` by k draws for each image of one minibatch, their mean in the bound.

    ``Elbo(k)`` would give each draw a minibatch of its own.
    """

    def repeated(images: Tensor, batch_size: int) -> None:
        with pyro.plate("draws", k, dim=-2), pyro.poutine.scale(scale=1 / k):
            program(images, batch_size)

    return repeated


class Training:
    """One cell of the table.

    Attributes:
        bounds: the mean training bound of an image, over each epoch.
        curve: steps, NLL by 100 draws and its error over the test images, after each stage.
    """

    def __init__(self, column: str, k: int, images: Tensor, test: Tensor, options: Any) -> None:
        self.intensities, self.test, self.seed = images, test, options.seed
        self.images = torch.empty_like(images)
        self.binarise(0)
        self.model = network(column, images, options.seed)
        self.steps_per_epoch = len(images) // BATCH
        self.ends = stage_ends(options.fraction, self.steps_per_epoch)
        self.total = self.ends[options.stages - 1]
        model, guide, objective = self.model.model, self.model.guide, None
        if column.startswith("iwae") and k > 1:
            objective = ImportanceWeighted(k, gradient="pathwise")
        elif k > 1:
            model, guide = by_draws(model, k), by_draws(guide, k)
        schedule = Stages(tuple(self.ends[:-1]), tuple(10 ** (-i / 7) for i in range(STAGES)))
        # the bound is that of all images, and so is its gradient
        optimizer = Adam(epsilon=1e-4 * len(images), schedule=schedule)
        # all steps of the schedule: neither svi's stopping rule nor its average belong to it
        chosen = Options(
            1, objective, self.ends[-1], RATE, optimizer, None, 0, options.compile, options.seed
        )
        self.run = SviRun(Problem(model, self.images, BATCH), guide, chosen, None)
        self.done, self.seconds = 0, 0.0
        self.recent: list[float] = []
        self.bounds: list[float] = []
        self.curve: list[tuple[int, float, float]] = []

    def binarise(self, epoch: int) -> None:
        """New binary images in the old ones' memory, which the recorded step reads."""
        device = self.images.device
        generator = torch.Generator(device).manual_seed(1000 * self.seed + epoch)
        for part, chances in zip(
            self.images.split(5000), self.intensities.split(5000), strict=True
        ):
            part.copy_(torch.bernoulli(chances, generator=generator))

    def train(self, path: Path, identity: Row) -> None:
        """All steps, from the checkpoint on."""
        if path.exists():
            self.read(path, identity)
        written = began = time.perf_counter()
        while self.done < self.total:
            self.recent += [bound / len(self.images) for bound in self.run.advance(self.done)]
            epoch = self.done // self.steps_per_epoch
            self.done += BLOCK
            if self.done // self.steps_per_epoch > epoch:
                self.bounds.append(sum(self.recent) / len(self.recent))
                self.recent = []
                self.binarise(epoch + 1)
            now = time.perf_counter()
            self.seconds, began = self.seconds + now - began, now
            if self.done in self.ends:
                found = average(-self.bound(FEW_DRAWS, self.test))
                self.curve.append((self.done, *found))
                began = time.perf_counter()  # looking is no training
            if self.done in self.ends or now - written > 60:
                self.write(path, identity)
                written = now

    def bound(self, num_samples: int, images: Tensor) -> Tensor:
        """The importance-weighted bound of each image, by the state of now."""
        self.run.ascent.place(self.run.ascent.values)
        return importance_weighted_log_likelihood(
            self.model, images, num_samples=num_samples, seed=self.seed
        ).value

    def write(self, path: Path, identity: Row) -> None:
        state, numbers = self.run.ascent.state()
        kept = {name: getattr(self, name) for name in KEPT}
        write_archive(path, {"identity": identity, "ascent": numbers, **kept}, state)
        print(f"  {self.done} of {self.total} steps, {self.seconds:.0f} s", flush=True)

    def read(self, path: Path, identity: Row) -> None:
        header, tensors = read_archive(path)
        if header["identity"] != identity:
            raise SystemExit(f"{path} is of another run: {header['identity']}")
        tensors = {name: tensor.to(self.images.device) for name, tensor in tensors.items()}
        self.run.ascent.restore(tensors, header["ascent"])
        for name in KEPT:
            setattr(self, name, header[name])
        self.binarise(self.done // self.steps_per_epoch)


KEPT = ("done", "seconds", "recent", "bounds", "curve")


def measure(column: str, k: int, train: Tensor, test: Tensor, options: Any) -> tuple[Row, Row]:
    """The row of a cell, and its curve."""
    print(f"{column}, k = {k}", flush=True)
    identity = {"column": column, "k": k, "fraction": options.fraction, "seed": options.seed}
    identity |= {"images": len(train), "test images": len(test)}
    path = options.checkpoints / f"{column}-{k}-{options.fraction:g}.ckpt"
    with seeded(options.seed), isolated():
        training = Training(column, k, train, test, options)
        try:
            training.train(path, identity)
        finally:
            training.run.compiling.close()
        _, few_draws, over_images = training.curve[-1]
        some = test[torch.linspace(0, len(test) - 1, options.images_by_samples).long()]
        gain = average(training.bound(options.samples, some) - training.bound(FEW_DRAWS, some))
    epochs = training.total / training.steps_per_epoch
    row = {
        "column": column,
        "k": k,
        "published": PUBLISHED[column][k],
        "NLL": few_draws - gain.value,
        "error": gain.standard_error,
        "error over images": math.hypot(over_images, gain.standard_error),
        "test images": len(test),
        f"by {options.samples} draws": len(some),
        "epochs": round(epochs, 2),
        "share of schedule": training.total / training.ends[-1],
        "stages": options.stages,
        "training bound": training.bounds[-1] if training.bounds else None,
        "hours": training.seconds / 3600,
        "images/s": BATCH * training.total / training.seconds,
        "how": training.run.compiling.how,
        "device": options.device,
    }
    per_epoch = training.steps_per_epoch
    curve = {
        "column": column,
        "k": k,
        "training bound of each epoch": [round(bound, 4) for bound in training.bounds],
        f"epochs, NLL by {FEW_DRAWS} draws, error over images": [
            (round(steps / per_epoch, 3), round(nll, 4), round(error, 4))
            for steps, nll, error in training.curve
        ],
    }
    return row, curve


def profile(column: str, k: int, train: Tensor, test: Tensor, options: Any) -> Row:
    """What a step costs: the least of ten means over a few, in seconds of one processor."""
    with seeded(options.seed), isolated():
        training = Training(column, k, train, test, options)
        run, seconds, done = training.run, [], itertools.count(0, BLOCK)
        try:
            run.advance(next(done))
            blocks = 5 if k < 50 else 1
            for _ in range(10):
                began = time.process_time()
                for _ in range(blocks):
                    run.advance(next(done))
                seconds.append((time.process_time() - began) / (blocks * BLOCK))
        finally:
            run.compiling.close()
    return {
        "column": column,
        "k": k,
        "ms a step": 1000 * min(seconds),
        "images/s": BATCH / min(seconds),
        "hours for 3280 epochs": min(seconds) * training.ends[-1] / 3600,
        "how": run.compiling.how,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--columns", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    parser.add_argument("--k", nargs="+", type=int, choices=[1, 5, 50], default=[1, 5, 50])
    parser.add_argument("--stages", type=int, choices=range(1, STAGES + 1), default=STAGES)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--images-by-samples", type=int, default=1000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--train-images", type=int, default=60_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--checkpoints", type=Path, default=Path("vae_mnist"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--uncompiled", dest="compile", action="store_const", const=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(compile="auto")
    options = parser.parse_args()
    if not 0 < options.fraction <= 1:
        parser.error("--fraction: expected a share of the schedule, above 0 and at most 1")
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    train = read(options.folder, "train", options.device)[: options.train_images]
    test = read(options.folder, "t10k", options.device)
    generator = torch.Generator(options.device).manual_seed(options.seed)
    test = torch.bernoulli(test, generator=generator)[: options.test_images]
    cells = [
        (column, k)
        for column in options.columns
        for k in options.k
        if k > 1 or column.startswith("vae")  # by one draw the two bounds are the same
    ]
    if options.profile:
        options.compile = bool(options.compile)  # at once
    costs: list[Row] = []
    for column, k in cells:
        if options.profile:
            costs.append(profile(column, k, train, test, options))
            report("vae_mnist_steps", costs)
            continue
        keep(*measure(column, k, train, test, options))


if __name__ == "__main__":
    main()
