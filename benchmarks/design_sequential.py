"""Designed against equispaced measurements of a damped oscillator: how many until ω is known?

q̈ = -ω²q - γq̇, q(0) = 1 at rest, seen at times up to 8 with noise 0.1; ω uniform on (1, 5), γ on (0.05, 0.5).
A run of ``run_design`` chooses each time by the contrastive bound among 32 candidates, given all results so
far. Beside it, as many equispaced times as are needed for the same width of the posterior of ω. Both widths
are taken on one fine grid of (ω, γ), by sums, which no code of the package has a part in.

    python benchmarks/design_sequential.py --seeds 20 --width 0.05
"""

import argparse
import math
import time

import pyro
import pyro.distributions as dist
import torch
from cavi_timing import report

from vitools import Status, run_design
from vitools.posterior import DrawsPosterior

torch.set_default_dtype(torch.float64)
LATEST, NOISE, MOST = 8.0, 0.1, 80
OMEGA = (1 + 4 * (torch.arange(1600) + 0.5) / 1600).unsqueeze(1)
GAMMA = (0.05 + 0.45 * (torch.arange(40) + 0.5) / 40).unsqueeze(0)


def position(t, omega, gamma):
    ringing = (omega**2 - gamma**2 / 4).sqrt()
    swing = (ringing * t).cos() + gamma / (2 * ringing) * (ringing * t).sin()
    return (-gamma * t / 2).exp() * swing


def oscillator(t, y=None):
    omega = pyro.sample("omega", dist.Uniform(torch.tensor(1.0), torch.tensor(5.0)))
    gamma = pyro.sample("gamma", dist.Uniform(torch.tensor(0.05), torch.tensor(0.5)))
    with pyro.plate("measurements", len(t)):
        pyro.sample("y", dist.Normal(position(t, omega, gamma), NOISE), obs=y)


def on_grid(times, outcomes):
    """Weights of the posterior on the grid."""
    log_p = torch.zeros(OMEGA.shape[0], GAMMA.shape[1])
    for t, y in zip(times.tolist(), outcomes.tolist(), strict=True):
        log_p = log_p - 0.5 * ((y - position(torch.tensor(t), OMEGA, GAMMA)) / NOISE) ** 2
    return (log_p - log_p.logsumexp((0, 1))).exp()


def width(times, outcomes):
    """Posterior standard deviation of ω."""
    weights = on_grid(times, outcomes).sum(1)
    mean = weights @ OMEGA[:, 0]
    return float((weights @ (OMEGA[:, 0] - mean) ** 2).sqrt())


def draws_from_grid(problem):
    """An engine for this model: independent draws from the grid, as one chain of a sampler."""
    weights = on_grid(problem.arguments["t"], problem.arguments["y"]).flatten()
    generator = torch.Generator().manual_seed(0)
    at = torch.multinomial(weights, 2000, replacement=True, generator=generator)
    jitter = torch.rand(2, 2000, generator=generator) - 0.5
    omega = OMEGA[at // 40, 0] + jitter[0] * 4 / 1600
    gamma = GAMMA[0, at % 40] + jitter[1] * 0.45 / 40
    draws = {"omega": omega.unsqueeze(0), "gamma": gamma.unsqueeze(0)}
    return DrawsPosterior(problem, draws, engine="grid", status=Status.SAMPLED)


def compared(seed, wanted):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(2, generator=generator)
    omega, gamma = 1 + 4 * u[0], 0.05 + 0.45 * u[1]

    def experiment(t):
        return position(t, omega, gamma) + NOISE * torch.randn(len(t), generator=generator)

    began = time.process_time()
    run = run_design(
        oscillator,
        experiment,
        torch.linspace(0.25, LATEST, 32),
        MOST,
        fit=draws_from_grid,
        until=lambda fit: width(fit.problem.arguments["t"], fit.problem.arguments["y"]) < wanted,
        method="contrastive",
        num_samples=400,
        seed=seed,
    )
    seconds = time.process_time() - began
    for count in range(1, MOST + 1):
        times = LATEST * (torch.arange(count) + 1.0) / count
        if width(times, experiment(times)) < wanted:
            break
    return {
        "seed": seed,
        "omega": float(omega),
        "designed": len(run),
        "equispaced": count,
        "processor_seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--width", type=float, default=0.05, help="of the posterior of ω")
    rows = []
    options = parser.parse_args()
    for seed in range(options.seeds):
        rows.append(compared(seed, options.width))
        print(rows[-1], flush=True)
    designed, equispaced = (sum(row[k] for row in rows) for k in ("designed", "equispaced"))
    print(f"measurements in all: {designed} designed, {equispaced} equispaced")
    ratios = torch.tensor([row["designed"] / row["equispaced"] for row in rows])
    error = float(ratios.std()) / math.sqrt(len(ratios))
    print(
        f"ratio {designed / equispaced:.3f}; mean of ratios {float(ratios.mean()):.3f} ± {error:.3f}"
    )
    report(f"design_sequential_{options.width:g}", rows)


if __name__ == "__main__":
    main()
