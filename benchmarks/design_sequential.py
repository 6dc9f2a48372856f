"""Designed against equispaced measurements of a damped oscillator: how many until ω is known?

q̈ = -ω²q - γq̇, q(0) = 1 at rest, seen at times up to 8 with noise 0.1; ω uniform on (1, 5), γ on (0.05, 0.5).
Three policies choose each time among 32 candidates, given all results so far: a run of ``run_design`` by the
contrastive bound of 400 draws; and, for what such an estimate costs, sums on a fine grid of (ω, γ) of the same
information on both, I(ω, γ; y), and of that on ω alone, I(ω; y). Beside them, as many equispaced times as are needed
for the same width of the posterior of ω. Widths are taken on that grid, by sums, which no code of the package
has a part in. The limit is what no choice of times can go below in the long run: repetitions at the time of
largest |∂q/∂ω|, were γ known.

    python benchmarks/design_sequential.py --seeds 20
"""

import argparse
import math

import pyro
import pyro.distributions as dist
import torch
from cavi_timing import report

from vitools import Status, run_design
from vitools.posterior import DrawsPosterior

torch.set_default_dtype(torch.float64)
LATEST, NOISE, MOST = 8.0, 0.1, 80
WIDTHS = (0.1, 0.05, 0.03, 0.02)
CANDIDATES = torch.linspace(0.25, LATEST, 32)
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


def truth_of(seed):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(2, generator=generator)
    omega, gamma = 1 + 4 * u[0], 0.05 + 0.45 * u[1]

    def experiment(t):
        return position(t, omega, gamma) + NOISE * torch.randn(len(t), generator=generator)

    return omega, gamma, experiment


class Reached:
    """After how many measurements each width was first reached."""

    def __init__(self):
        self.counts = {}

    def __call__(self, times, outcomes):
        now = width(times, outcomes)
        for wanted in WIDTHS:
            if now < wanted:
                self.counts.setdefault(wanted, len(times))
        return len(self.counts) == len(WIDTHS)


def by_package(seed, experiment):
    reached = Reached()
    run_design(
        oscillator,
        experiment,
        CANDIDATES,
        MOST,
        fit=draws_from_grid,
        until=lambda fit: reached(fit.problem.arguments["t"], fit.problem.arguments["y"]),
        method="contrastive",
        num_samples=400,
        seed=seed,
    )
    return reached.counts


def exact_gains(weights, of_omega_alone):
    """I(ω; y) or I(ω, γ; y) of each candidate, by sums over the grid, at most 400 of its rows, and over y."""
    rows = (weights.sum(1) > 1e-7 * weights.sum(1).max()).nonzero()[:, 0]
    weights, omega = weights[rows], OMEGA[rows]
    together = max(1, len(rows) // 200)
    whole = len(rows) // together * together
    weights = weights[:whole].reshape(-1, together, weights.shape[1]).sum(1)
    omega = omega[together // 2 : whole : together]
    columns = (weights.sum(0) > 1e-7 * weights.sum()).nonzero()[:, 0]
    weights, gamma = weights[:, columns] / weights[:, columns].sum(), GAMMA[:, columns]
    y = torch.linspace(-1.6, 1.6, 161)

    def entropy(density):
        return -torch.special.xlogy(density, density).sum(-1) * (y[1] - y[0])

    gains = []
    for t in CANDIDATES:
        off = (y - position(t, omega, gamma).unsqueeze(-1)) / NOISE
        density = (-0.5 * off**2).exp() / (NOISE * math.sqrt(2 * math.pi))
        of_omega = (weights.unsqueeze(-1) * density).sum(1)
        share = weights.sum(1)
        left = 0.5 * math.log(2 * math.pi * math.e * NOISE**2)
        if of_omega_alone:
            left = share @ entropy(of_omega / share.unsqueeze(-1))
        gains.append(entropy(of_omega.sum(0)) - left)
    return torch.stack(gains)


def by_sums(experiment, of_omega_alone):
    reached, times, outcomes = Reached(), torch.zeros(0), torch.zeros(0)
    for _ in range(MOST):
        best = int(exact_gains(on_grid(times, outcomes), of_omega_alone).argmax())
        time_of_next = CANDIDATES[best : best + 1]
        times = torch.cat([times, time_of_next])
        outcomes = torch.cat([outcomes, experiment(time_of_next)])
        if reached(times, outcomes):
            break
    return reached.counts


def equispaced(experiment):
    """Each number of times is an experiment of its own."""
    reached = Reached()
    for count in range(1, MOST + 1):
        times = LATEST * (torch.arange(count) + 1.0) / count
        if reached(times, experiment(times)):
            break
    return reached.counts


def limits(omega, gamma):
    """Measurements at the best time alone, γ known: (σ / (width |∂q/∂ω|))²."""
    t = torch.linspace(0.01, LATEST, 4000)
    _, slope = torch.func.jvp(lambda w: position(t, w, gamma), (omega,), (torch.ones_like(omega),))
    return {w: math.ceil(float((NOISE / (w * slope.abs().max())) ** 2)) for w in WIDTHS}


POLICIES = {
    "contrastive": lambda seed, experiment: by_package(seed, experiment),
    "exact": lambda seed, experiment: by_sums(experiment, of_omega_alone=False),
    "exact, of ω": lambda seed, experiment: by_sums(experiment, of_omega_alone=True),
    "equispaced": lambda seed, experiment: equispaced(experiment),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    rows = []
    for seed in range(parser.parse_args().seeds):
        omega, gamma, _ = truth_of(seed)
        row = {"seed": seed, "omega": float(omega), "gamma": float(gamma)}
        for name, policy in POLICIES.items():
            found = policy(seed, truth_of(seed)[2])
            row[name] = {f"{w:g}": found.get(w, math.inf) for w in WIDTHS}
        row["limit"] = {f"{w:g}": n for w, n in limits(omega, gamma).items()}
        rows.append(row)
        print(row, flush=True)
    for w in (f"{w:g}" for w in WIDTHS):
        total = {name: sum(row[name][w] for row in rows) for name in (*POLICIES, "limit")}
        print(f"width {w}: {total}")
        for name in ("contrastive", "exact", "exact, of ω"):
            ratios = torch.tensor([row[name][w] / row["equispaced"][w] for row in rows])
            error = float(ratios.std()) / math.sqrt(len(ratios))
            print(
                f"  {name}: ratio of sums {total[name] / total['equispaced']:.3f}, mean of ratios "
                f"{float(ratios.mean()):.3f} ± {error:.3f}"
            )
    report("design_sequential", rows)


if __name__ == "__main__":
    main()
