"""Milliseconds of a reparameterised draw and its backward pass, beside torch's own distributions.

    OMP_NUM_THREADS=1 python benchmarks/rsample.py [--out benchmarks/results]

Each figure is the median over rounds of: rsample, log_prob of the draw, sum, backward to the
parameters. All distributions take turns within a round, so that a slow moment of the machine hits
them alike. Ratios are medians of the ratios within rounds. Writes rsample.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributions

from vitools import distributions as ours

SCALARS = 100_000
ROWS, SIZE = 10_000, 10
ROUNDS = 15

Make = Callable[[Tensor, Tensor], Any]

UNIT_INTERVAL: dict[str, Make] = {
    "Kumaraswamy": lambda a, b: ours.Kumaraswamy(a, b, validate_args=False),
    "Beta": lambda a, b: ours.Beta(a.exp(), b.exp(), validate_args=False),
    "torch Kumaraswamy": lambda a, b: distributions.Kumaraswamy(
        a.exp(), b.exp(), validate_args=False
    ),
    "torch Beta": lambda a, b: distributions.Beta(a.exp(), b.exp(), validate_args=False),
    "torch LogisticNormal, K = 2": lambda a, b: distributions.LogisticNormal(
        a.unsqueeze(-1), b.exp().unsqueeze(-1), validate_args=False
    ),
}
SIMPLEX: dict[str, Make] = {
    "LogisticNormal": lambda a, b: ours.LogisticNormal(a, b.exp(), validate_args=False),
    "stick-breaking Kumaraswamy": lambda a, b: ours.StickBreaking.kumaraswamy(
        a[..., 1:], b[..., 1:]
    ),
    "MVKumaraswamy": lambda a, b: ours.MVKumaraswamy(a + 0 * b, validate_args=False),
    "Dirichlet": lambda a, b: ours.Dirichlet((a + 0 * b).exp(), validate_args=False),
    "torch LogisticNormal": lambda a, b: distributions.LogisticNormal(
        a[..., 1:], b[..., 1:].exp(), validate_args=False
    ),
    "torch Dirichlet": lambda a, b: distributions.Dirichlet((a + 0 * b).exp(), validate_args=False),
}


def milliseconds(make: Make, first: Tensor, second: Tensor, with_density: bool) -> float:
    first.grad = second.grad = None
    began = time.perf_counter()
    q = make(first, second)
    draw = q.rsample()
    loss = draw.sum() + q.log_prob(draw).sum() if with_density else draw.sum()
    loss.backward()
    return 1000 * (time.perf_counter() - began)


def measure(table: dict[str, Make], shape: tuple[int, ...], with_density: bool) -> dict[str, list]:
    """Times of every distribution, one per round, after two rounds to warm up."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        (0.5 * torch.randn(shape, generator=generator)).requires_grad_() for _ in range(2)
    )
    times: dict[str, list[float]] = {name: [] for name in table}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for turn in range(ROUNDS + 2):
            for name, make in table.items():
                value = milliseconds(make, first, second, with_density)
                if turn >= 2:
                    times[name].append(value)
    return times


def ratio(times: dict[str, list], numerator: str, denominator: str) -> float:
    pairs = zip(times[numerator], times[denominator], strict=True)
    return statistics.median(a / b for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "rounds": ROUNDS, "float": 32}
    for key, with_density in (("draw", False), ("draw_and_density", True)):
        scalars = measure(UNIT_INTERVAL, (SCALARS,), with_density)
        vectors = measure(SIMPLEX, (ROWS, SIZE), with_density)
        print(f"\n{key.replace('_', ' ')}: ms, median of {ROUNDS}")
        for what, times in ((f"{SCALARS} scalars", scalars), (f"{ROWS} × {SIZE}", vectors)):
            for name, values in times.items():
                print(f"  {what:15} {name:30} {statistics.median(values):8.2f}")
        ratios = {
            "Kumaraswamy / torch Kumaraswamy": ratio(scalars, "Kumaraswamy", "torch Kumaraswamy"),
            "torch Beta / Kumaraswamy": ratio(scalars, "torch Beta", "Kumaraswamy"),
            "torch Dirichlet / stick-breaking Kumaraswamy": ratio(
                vectors, "torch Dirichlet", "stick-breaking Kumaraswamy"
            ),
            "torch Dirichlet / LogisticNormal": ratio(vectors, "torch Dirichlet", "LogisticNormal"),
        }
        for name, value in ratios.items():
            print(f"  {name:50} {value:.2f}")
        result[key] = {
            "milliseconds": {
                name: statistics.median(values) for name, values in (scalars | vectors).items()
            },
            "ratios": ratios,
        }
    (out / "rsample.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
