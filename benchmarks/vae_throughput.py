"""Images a second in training a VAE 784-400-50: vitools, plain PyTorch by hand, Pyro, NumPyro.

    python benchmarks/vae_throughput.py [--batch 128] [--rounds 5] [--seconds 4] [--device cpu]

torch takes its threads from ``OMP_NUM_THREADS``, JAX as many as the process has cores: one core for
all is ``OMP_NUM_THREADS=1 taskset -c 0``, two for all ``OMP_NUM_THREADS=2 taskset -c 0,1``.

All use the same networks, Adam, one draw for an image and the KL as Monte Carlo mean (vitools,
Pyro) or in closed form (by hand, and vitools with ``analytic_kl``). The contenders take turns, so
that a busy machine is as busy for all; figures are medians of rounds, with the smallest and
largest, and "of eager", "of compiled" and "of NumPyro" are medians of ratios within a round. "ready s" is the
time to the end of the first steps: recording and compiling.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from cavi_timing import report
from svi_numpyro import vae_steps
from torch import Tensor

from vitools import Problem
from vitools.engines.objectives import Elbo
from vitools.engines.svi.optimisers.ascent import BLOCK
from vitools.engines.svi.svi_run import Options, SviRun
from vitools.isolation import isolated, seeded
from vitools.models.vae import VAE

LATENTS, HIDDEN, RATE = 50, (400,), 1e-3
Steps = Callable[[int], None]


def make_vae(images: Tensor) -> VAE:
    return VAE(images.shape[1], LATENTS, hidden=HIDDEN, seed=0).to(images.device)


def by_vitools(images: Tensor, batch: int, *, analytic_kl: bool, how: bool) -> Steps:
    vae = make_vae(images)
    limit = 10**9
    objective = Elbo(analytic_kl=analytic_kl)
    options = Options(1, objective, limit, RATE, None, None, 0, how, 0)
    with isolated():
        run = SviRun(Problem(vae.model, images, batch), vae.guide, options, None)
    done = itertools.count(0, BLOCK)

    def steps(count: int) -> None:
        with seeded(0):
            for _ in range(0, count, BLOCK):
                run.advance(next(done))

    return steps


def by_hand(images: Tensor, batch: int, *, compiled: bool) -> Steps:
    """The loop one would write, its loss as it is or under ``torch.compile``."""
    vae = make_vae(images)
    encoder, decoder = vae.encoder.network, vae.decoder.network
    optimizer = torch.optim.Adam(vae.parameters(), lr=RATE)

    def loss_of(x: Tensor, noise: Tensor) -> Tensor:
        mean, log_sd = encoder(x).chunk(2, -1)
        logits = decoder(mean + log_sd.exp() * noise)
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return fit + 0.5 * (mean**2 + (2 * log_sd).exp() - 1 - 2 * log_sd).sum()

    loss_function = torch.compile(loss_of) if compiled else loss_of

    def steps(count: int) -> None:
        total = 0.0
        for _ in range(count):
            x = images[torch.randint(len(images), (batch,), device=images.device)]
            loss = loss_function(x, torch.randn(batch, LATENTS, device=images.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()

    return steps


def by_pyro(images: Tensor, batch: int) -> Steps:
    vae = make_vae(images)
    with isolated() as state:
        engine = pyro.infer.SVI(
            vae.model, vae.guide, pyro.optim.Adam({"lr": RATE}), pyro.infer.Trace_ELBO()
        )

    def steps(count: int) -> None:
        with isolated(state):
            for _ in range(count):
                engine.step(images, batch)

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(6)
    images = (torch.rand(options.images, 784, generator=generator) < 0.2).float()
    images = images.to(options.device)
    makers: dict[str, Callable[[Tensor, int], Steps]] = {
        "vitools": partial(by_vitools, analytic_kl=False, how=True),
        "vitools, analytic KL": partial(by_vitools, analytic_kl=True, how=True),
        "vitools, uncompiled": partial(by_vitools, analytic_kl=False, how=False),
        "by hand, eager": partial(by_hand, compiled=False),
        "by hand, compiled": partial(by_hand, compiled=True),
        "Pyro": by_pyro,
        "NumPyro": lambda images, batch: vae_steps(images.cpu().numpy(), batch, RATE),
    }
    contenders: dict[str, Steps] = {}
    ready: dict[str, float] = {}
    sizes: dict[str, int] = {}
    share = options.seconds / options.rounds
    for name, maker in makers.items():
        began = time.perf_counter()
        contenders[name] = maker(images, options.batch)
        contenders[name](2 * BLOCK)
        ready[name] = time.perf_counter() - began
        pace = _seconds(contenders[name], 4 * BLOCK, options.device) / (4 * BLOCK)
        sizes[name] = BLOCK * max(1, round(share / pace / BLOCK))
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds):
        rounds.append({})
        for name, steps in contenders.items():
            seconds = _seconds(steps, sizes[name], options.device)
            rounds[-1][name] = options.batch * sizes[name] / seconds
    rows: list[dict[str, Any]] = []
    for name in contenders:
        rates = [found[name] for found in rounds]
        rows.append(
            {
                "contender": name,
                "images/s": round(statistics.median(rates)),
                "least": round(min(rates)),
                "most": round(max(rates)),
                "of eager": _median(f[name] / f["by hand, eager"] for f in rounds),
                "of compiled": _median(f[name] / f["by hand, compiled"] for f in rounds),
                "of NumPyro": _median(f[name] / f["NumPyro"] for f in rounds),
                "ready s": ready[name],
                "batch": options.batch,
                "threads": torch.get_num_threads(),
                "device": options.device,
            }
        )
    report(
        "vae_throughput" if options.device == "cpu" else f"vae_throughput_{options.device}", rows
    )


def _seconds(steps: Steps, count: int, device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    steps(count)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _median(values: Any) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
