"""How noisy each gradient estimator of a bound is, on three models, at the start and at a fit.

    OMP_NUM_THREADS=1 python benchmarks/gradient_variance.py [--draws 2000] [--out benchmarks/results]

Every estimator is recorded as a graph and run on fresh draws. The noise is the root of the mean
variance over the guide's parameters; the signal is the root mean square of the mean gradient;
milliseconds are the median of single runs of the graph (of the Python code for a running mean,
which is no graph). Each K has its own bound, so that only noise *relative to the signal* compares
different K. Writes gradient_variance.json and .md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from vitools import Problem, svi
from vitools.distributions.gaussian import Normal
from vitools.engines.objectives import Elbo, ImportanceWeighted, ScoreFunction
from vitools.guides import AutoMeanField
from vitools.isolation import isolated, seeded

TIMED = 50
SEQUENTIAL = 300  # draws of an estimator that carries state


def regression(features: Tensor, target: Tensor) -> None:
    with pyro.plate("columns", features.shape[1]):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(target)):
        pyro.sample("y", dist.Normal(features @ w, 0.5), obs=target)


def local_factors(data: Tensor) -> None:
    """A decoder with two latents for each row."""
    with pyro.plate("rows", len(data)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        loc = torch.stack([z[..., 0] * z[..., 1], z.sin().sum(-1), z[..., 0]], -1)
        pyro.sample("x", dist.Normal(loc, 0.3).to_event(1), obs=data)


def labels(data: Tensor) -> None:
    """A mixture whose labels the guide below draws, instead of leaving them to be summed out."""
    with pyro.plate("components", 3):
        centre = pyro.sample("centre", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(data)):
        k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("x", dist.Normal(centre[k], 1.0), obs=data)


def labels_guide(data: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor([-2.0, 0.0, 2.0]))
    log_scale = pyro.param("log_scale", torch.full((3,), -2.0))
    logits = pyro.param("logits", lambda: 0.1 * torch.randn(len(data), 3))
    with pyro.plate("components", 3):
        pyro.sample("centre", Normal(loc, log_scale.exp()))
    with pyro.plate("rows", len(data)):
        pyro.sample("k", dist.Categorical(logits=logits))


def labels_guide_with_network() -> Callable[[Tensor], None]:
    """The same guide with a baseline that is learnt: a network of the row."""
    with seeded(0):
        network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def guide(data: Tensor) -> None:
        pyro.module("baseline", network)
        loc = pyro.param("loc", torch.tensor([-2.0, 0.0, 2.0]))
        log_scale = pyro.param("log_scale", torch.full((3,), -2.0))
        logits = pyro.param("logits", lambda: 0.1 * torch.randn(len(data), 3))
        with pyro.plate("components", 3):
            pyro.sample("centre", Normal(loc, log_scale.exp()))
        learnt = {"nn_baseline": network, "baseline_input": data.unsqueeze(-1)}
        with pyro.plate("rows", len(data)):
            pyro.sample("k", dist.Categorical(logits=logits), infer={"baseline": learnt})

    return guide


def importance_weighted() -> dict[str, Any]:
    return {
        f"K = {k}, {gradient.replace('_', ' ')}": ImportanceWeighted(k, gradient)
        for k in (5, 64)
        for gradient in ("pathwise", "doubly_reparameterised")
    }


REPARAMETERISED: dict[str, Any] = {
    "pathwise": Elbo(),
    "pathwise, analytic KL": Elbo(analytic_kl=True),
    "sticking the landing": Elbo(gradient="sticking_the_landing"),
    "pathwise, mean of 5": Elbo(5),
    **importance_weighted(),
}
SCORE: dict[str, Any] = {
    f"{words}, 4 draws{'' if selective else ', whole signal'}": ScoreFunction(4, name, selective)
    for name, words in (
        ("none", "no baseline"),
        ("running_mean", "running mean"),
        ("leave_one_out", "leave one out"),
    )
    for selective in (False, True)
}

LEARNT: dict[str, Any] = {
    "network, 4 draws": ScoreFunction(4, "none"),
    "network, leave one out, 4 draws": ScoreFunction(4, "leave_one_out"),
}


def estimator(
    spec: Any, problem: Problem, guide: Any, params: dict[str, Any]
) -> tuple[Callable[[], Tensor], bool]:
    """The gradient at ``params`` as one vector, and whether it is a graph."""
    with seeded(0), isolated(params, guide) as state:
        objective = spec(problem, guide)
        objective.loss()
    named = state["params"].items()
    leaves = [p for name, p in named if p.requires_grad and not name.startswith("baseline$$$")]

    def gradient() -> Tensor:
        with isolated(state, guide), torch.enable_grad():
            parts = torch.autograd.grad(objective.loss(), leaves)
        return torch.cat([part.detach().flatten() for part in parts])

    if not objective.is_recordable:
        return gradient, False
    with seeded(0):
        return make_fx(gradient)(), True


def measure(
    spec: Any, problem: Problem, guide: Any, params: dict[str, Any], draws: int
) -> dict[str, float]:
    gradient, is_graph = estimator(spec, problem, guide, params)
    with seeded(1), torch.no_grad():
        if is_graph:
            lanes = torch.zeros(draws)
            sample = torch.vmap(lambda _: gradient(), randomness="different", chunk_size=250)(lanes)
        else:
            sample = torch.stack([gradient() for _ in range(SEQUENTIAL)])
        times = []
        for _ in range(TIMED):
            began = time.perf_counter()
            gradient()
            times.append(1000 * (time.perf_counter() - began))
    signal = float(sample.mean(0).square().mean().sqrt())
    noise = float(sample.var(0).mean().sqrt())
    return {
        "noise": noise,
        "signal": signal,
        "relative": noise / signal,
        "milliseconds": statistics.median(times),
    }


def cases(seed: int) -> dict[str, tuple[Problem, Any, dict[str, Any]]]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(100, 5, generator=generator)
    target = features @ torch.randn(5, generator=generator)
    target = target + 0.5 * torch.randn(100, generator=generator)
    rows = torch.randn(50, 3, generator=generator)
    centres = torch.tensor([-3.0, 0.0, 3.0])[torch.randint(3, (60,), generator=generator)]
    mixed = centres + torch.randn(60, generator=generator)
    return {
        "regression, N = 100, D = 5": (
            Problem(regression, features, target),
            AutoMeanField,
            REPARAMETERISED,
        ),
        "two latents a row, N = 50": (Problem(local_factors, rows), AutoMeanField, REPARAMETERISED),
        "labels drawn by the guide, N = 60": (Problem(labels, mixed), labels_guide, SCORE),
        "labels with a learnt baseline, N = 60": (
            Problem(labels, mixed),
            labels_guide_with_network(),
            LEARNT,
        ),
    }


def markdown(result: dict[str, Any]) -> str:
    """One row for each model and estimator; noise by signal, which can be compared, in bold."""
    lines = [
        "| model | gradient | at the start: noise | signal | noise / signal "
        "| at the fit: noise | signal | noise / signal | ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, places in result.items():
        if not isinstance(places, dict):  # how it was measured
            continue
        for name, start in places["start"].items():
            fit = places["fit"][name]
            figures = " | ".join(
                f"{row['noise']:.3g} | {row['signal']:.3g} | **{row['relative']:.2g}**"
                for row in (start, fit)
            )
            lines.append(f"| {title} | {name} | {figures} | {fit['milliseconds']:.2f} |")
    note = (
        "Noise: root of the mean variance over the guide's parameters. Signal: root mean square of "
        "the mean gradient, which vanishes at a fit. Bounds of different K are different functions, "
        f"so only the ratio compares them. {result['draws']} draws each, {result['threads']} thread."
    )
    return "\n".join([*lines, "", note]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"draws": options.draws, "threads": torch.get_num_threads()}
    for title, (problem, kind, specs) in cases(0).items():
        for place, steps in (("start", 1), ("fit", 3000)):
            fit = svi(problem, kind, max_steps=steps, num_particles=4)
            print(f"\n{title}, at the {place} ({fit.status.label})")
            print(f"{'':44}{'noise':>10}{'signal':>10}{'ratio':>9}{'ms':>8}")
            for name, spec in specs.items():
                row = measure(spec, problem, fit.guide, fit.params, options.draws)
                result.setdefault(title, {}).setdefault(place, {})[name] = row
                print(
                    f"{name:44}{row['noise']:10.3g}{row['signal']:10.3g}"
                    f"{row['relative']:9.2f}{row['milliseconds']:8.2f}"
                )
    (options.out / "gradient_variance.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "gradient_variance.md").write_text(markdown(result))


if __name__ == "__main__":
    main()
