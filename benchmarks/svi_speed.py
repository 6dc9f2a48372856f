"""Steps per second and seconds to the same bound: vitools, Pyro and NumPyro side by side.

    python benchmarks/svi_speed.py [--steps 20000] [--repeats 1] [problem …]

Every engine runs Adam at one step size from its own default start with one draw per step. Start-up
(tracing, compiling) is counted: "start s" is what the first steps cost beyond the pace of the later
ones, "total s" is start + steps x pace for the given number of steps. "to bound s" is the time
until the mean of 100 bounds first comes within half a nat per latent of the best end of all runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from cavi_timing import report
from pyro.infer import (
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    config_enumerate,
)
from svi_numpyro import NUMPYRO
from svi_problems import problems

from vitools import Problem, svi
from vitools.isolation import seeded
from vitools.models.vae import VAE

RATE = 0.01
Run = Callable[[int], tuple[list[float], list[float]]]
"""From a number of steps to the bound after each and the seconds since the start at each."""


def vitools_run(model, args, make, how) -> Run:
    def run(steps: int) -> tuple[list[float], list[float]]:
        began = time.perf_counter()
        problem = Problem(model, *args)
        reading = time.perf_counter() - began
        fit = svi(problem, make(model), max_steps=steps, learning_rate=RATE, compile=how)
        return fit.history.elbo, [reading + s for s in fit.history.seconds]

    return run


def pyro_run(model, args, make, loss, enumerates) -> Run:
    def run(steps: int) -> tuple[list[float], list[float]]:
        began = time.perf_counter()
        bounds, seconds = [], []
        with seeded(0), pyro.get_param_store().scope():
            called = config_enumerate(model, "parallel") if enumerates else model
            elbo = loss(max_plate_nesting=2) if enumerates else loss()
            optimizer = pyro.optim.Adam({"lr": RATE})
            engine = pyro.infer.SVI(called, make(model), optimizer, elbo)
            data = tuple(a for a in args if isinstance(a, torch.Tensor))
            data = data if loss in (JitTrace_ELBO, JitTraceEnum_ELBO) else args
            for _ in range(steps):
                bounds.append(-engine.step(*data))
                seconds.append(time.perf_counter() - began)
        return bounds, seconds

    return run


def hand_written_vae(images: torch.Tensor, batch: int) -> Run:
    """The loop one would write in plain PyTorch."""

    def run(steps: int) -> tuple[list[float], list[float]]:
        vae = VAE(images.shape[1], 50, hidden=(400,), seed=0)
        optimizer = torch.optim.Adam(vae.parameters(), lr=RATE)
        began = time.perf_counter()
        bounds, seconds = [], []
        with seeded(0):
            for _ in range(steps):
                x = images[torch.randperm(len(images))[:batch]]
                mean, log_sd = vae.encoder.network(x).chunk(2, -1)
                z = mean + log_sd.exp() * torch.randn_like(mean)
                logits = vae.decoder.network(z)
                fit = torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, x, reduction="sum"
                )
                divergence = 0.5 * (mean**2 + (2 * log_sd).exp() - 1 - 2 * log_sd).sum()
                loss = (fit + divergence) * (len(images) / batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bounds.append(-loss.item())
                seconds.append(time.perf_counter() - began)
        return bounds, seconds

    return run


def engines(name, model, args, make, enumerates) -> dict[str, tuple[Run, int]]:
    """Label → run, and how many times fewer steps it is timed on."""
    plain, jit = (TraceEnum_ELBO, JitTraceEnum_ELBO) if enumerates else (Trace_ELBO, JitTrace_ELBO)
    found = {
        "vitools compiled": (vitools_run(model, args, make, True), 1),
        "vitools auto": (vitools_run(model, args, make, "auto"), 1),
        "vitools uncompiled": (vitools_run(model, args, make, False), 10),
        f"Pyro {plain.__name__}": (pyro_run(model, args, make, plain, enumerates), 10),
    }
    if name == "vae":
        found["PyTorch by hand"] = (hand_written_vae(*args), 1)
    else:
        label = f"Pyro {jit.__name__}"
        found[label] = (pyro_run(model, args, make, jit, enumerates), 10)
    if name in NUMPYRO:
        arrays = [a.numpy() if isinstance(a, torch.Tensor) else a for a in args]
        found["NumPyro svi.run"] = (NUMPYRO[name](arrays, RATE), 1)
    return found


def measure(run: Run, steps: int, repeats: int) -> tuple[list[float], float, float]:
    """Bounds of the first repeat; medians of the start-up and of the seconds a step."""
    bounds: list[float] = []
    starts, paces = [], []
    for _ in range(repeats):
        elbo, seconds = run(steps)
        bounds = bounds or elbo
        half = len(seconds) // 2
        pace = (seconds[-1] - seconds[half]) / (len(seconds) - 1 - half)
        paces.append(pace)
        starts.append(max(0.0, seconds[-1] - pace * len(seconds)))
    return bounds, statistics.median(starts), statistics.median(paces)


def smooth(bounds: list[float]) -> np.ndarray:
    return np.convolve(bounds, np.full(100, 0.01), "valid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, (model, args, make, enumerates) in problems().items():
        if options.problems and name not in options.problems:
            continue
        steps = options.steps // 20 if name in ("logistic", "vae") else options.steps
        results = {}
        for label, (run, fewer) in engines(name, model, args, make, enumerates).items():
            try:
                results[label] = measure(run, max(steps // fewer, 200), options.repeats)
            except Exception as error:  # a peer that cannot run the model is a result as well
                rows.append({"problem": name, "engine": label, "failed": str(error)[:100]})
        latents = sum(site.shape.numel() for site in Problem(model, *args).continuous.values())
        best = max(smooth(bounds)[-1] for bounds, _, _ in results.values())
        target = best - (0.5 * latents if name != "vae" else 0.05 * abs(best))
        for label, (bounds, start, pace) in results.items():
            reached = np.flatnonzero(smooth(bounds) >= target)
            rows.append(
                {
                    "problem": name,
                    "engine": label,
                    "ms/step": 1000 * pace,
                    "steps/s": round(1 / pace),
                    "start s": start,
                    "total s": start + pace * steps,
                    "to bound s": start + pace * (int(reached[0]) + 100) if len(reached) else "",
                }
            )
    report("svi_speed", rows)


if __name__ == "__main__":
    main()
