"""How far each guide on the simplex stays from a posterior that is known exactly.

    python benchmarks/simplex_guides.py [--out benchmarks/results] [--steps 150] [--part two_dice]

Part 1, Dirichlet-multinomial: prior Dirichlet(α, …, α) over K categories, ten counts drawn from it,
posterior Dirichlet(α + counts). Each guide starts at the posterior's moments (as after a fit by
coordinate ascent) and is fitted by plain ``pyro.infer.SVI`` at falling steps, so that what remains
is what its family lacks, and not its optimiser's luck. KL(q ‖ posterior) is exact where it has a
closed form, otherwise a mean over draws with its standard error.

Part 2, two dice with discrete latents summed out, the hidden dice's priors α (1.2, .8) and
α (.7, 1.5): :func:`vitools.svi` from the prior; the exact log evidence is known by enumeration,
and KL(q ‖ posterior) is what the bound lacks of it.

Writes simplex_guides.json and, as Markdown, simplex_guides.md.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.poutine import block
from torch.distributions import kl_divergence

from vitools import Problem, svi
from vitools.diagnostics.weights.khat import khat_estimate
from vitools.distributions import StickBreaking
from vitools.errors import VitoolsWarning
from vitools.guides import AutoMeanField, AutoMultivariate
from vitools.isolation import seeded
from vitools.models import two_dice

ALPHAS = (0.02, 0.1, 1.0, 10.0, 100.0)
SIZES = (2, 5, 10, 50)
COUNTS = 10
PARTICLES = 32
DRAWS = 10_000

PATIENCE = {"mv_kumaraswamy": 4}
"""Multiples of the steps, for families whose start is not near the posterior's moments."""

Row = dict[str, Any]


def mean_field(family: str) -> Callable[..., AutoMeanField]:
    """``family`` at every site on the simplex (all sites of the models here)."""

    def make(model: Callable, sites: tuple[str, ...]) -> AutoMeanField:
        return AutoMeanField(model, dict.fromkeys(sites, family))

    return make


def multivariate(model: Callable, _sites: tuple[str, ...]) -> AutoMultivariate:
    return AutoMultivariate(model)


GUIDES: dict[str, Callable[..., Any]] = {
    "dirichlet": mean_field("dirichlet"),
    "stick_kumaraswamy": mean_field("stick_kumaraswamy"),
    "mv_kumaraswamy": mean_field("mv_kumaraswamy"),
    "logistic_normal": mean_field("logistic_normal"),
    "normal": mean_field("normal"),
    "multivariate": multivariate,
}


def dirichlet_multinomial(alpha: float, size: int) -> tuple[Callable, dist.Dirichlet]:
    """The model with ten counts simulated from it, and its posterior."""
    prior = torch.full((size,), alpha, dtype=torch.float64)
    with seeded(0):
        counts = dist.Multinomial(COUNTS, dist.Dirichlet(prior).sample()).sample()

    def model() -> None:
        pi = pyro.sample("pi", dist.Dirichlet(prior, validate_args=False))
        pyro.sample("x", dist.Multinomial(COUNTS, pi, validate_args=False), obs=counts)

    return model, dist.Dirichlet(prior + counts, validate_args=False)


def fit_from_posterior(
    make: Callable, model: Callable, posterior: dist.Dirichlet, steps: int
) -> Any:
    """q(π) after ``steps`` of plain SVI, started at the posterior's moments."""
    with seeded(0), pyro.get_param_store().scope():
        guide = make(model, ("pi",))
        with block():
            guide()
        guide.initialise_from(SimpleNamespace(marginal=lambda site: posterior))
        elbo = Trace_ELBO(num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=0)
        decay = (0.01) ** (1 / steps)
        optimizer = pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": decay}
        )
        run = SVI(model, guide, optimizer, elbo)
        for _ in range(steps):
            run.step()
            optimizer.step()
        return guide.marginal("pi")


def divergence(q: Any, posterior: dist.Dirichlet) -> tuple[float, float, float, float]:
    """KL(q ‖ posterior) and its error (0 where exact), k̂ and its error."""
    with seeded(1), torch.no_grad():
        draws = q.sample((DRAWS,))
        log_q = q.log_prob(draws)
        log_p = posterior.log_prob(draws.clamp(min=torch.finfo(draws.dtype).tiny))
    gap = log_q - log_p
    estimate = khat_estimate(-gap)
    khat = estimate.value, estimate.standard_error
    try:
        return kl_divergence(q, posterior).item(), 0.0, *khat
    except NotImplementedError:
        return gap.mean().item(), gap.std().item() / math.sqrt(DRAWS), *khat


def conjugate_rows(steps: int) -> list[Row]:
    rows = []
    for size in SIZES:
        for alpha in ALPHAS:
            model, posterior = dirichlet_multinomial(alpha, size)
            least = StickBreaking.closest_to(posterior)[1].item()
            for name, make in GUIDES.items():
                began = time.perf_counter()
                q = fit_from_posterior(make, model, posterior, steps * PATIENCE.get(name, 1))
                seconds = time.perf_counter() - began
                kl, error, khat, khat_error = divergence(q, posterior)
                rows.append(
                    {
                        "guide": name,
                        "alpha": alpha,
                        "K": size,
                        "kl": kl,
                        "kl_standard_error": error,
                        "khat": khat,
                        "khat_standard_error": khat_error,
                        "seconds": seconds,
                        **({"least_kl_of_family": least} if name == "stick_kumaraswamy" else {}),
                    }
                )
                print(
                    f"K={size:<3} α={alpha:<6} {name:18} KL {kl:9.4f} ± {error:.4f}  "
                    f"k̂ {khat:5.2f}  {seconds:.1f} s",
                    flush=True,
                )
    return rows


DICE = {
    "sides1": 2,
    "sides2": 2,
    "faces": 2,
    "alpha1": (1.2, 0.8),
    "alpha2": (0.7, 1.5),
    "beta": ((1.0, 0.5), (0.6, 1.4), (2.0, 0.9)),
}
ROLLS = [
    [0] * zeros + [1] * ones
    for zeros, ones in ((3, 0), (2, 1), (3, 0), (0, 3), (0, 3), (1, 2), (3, 0))
]


def dice_rows() -> list[Row]:
    """The two dice of which methods of this kind have published bounds."""
    return [row for alpha in ALPHAS for row in _dice_rows(alpha)]


def _dice_rows(alpha: float) -> list[Row]:
    dice = DICE | {key: tuple(alpha * a for a in DICE[key]) for key in ("alpha1", "alpha2")}
    evidence = two_dice.exact_log_evidence(ROLLS, **dice)
    problem = Problem(two_dice.model, torch.tensor(ROLLS), **dice)
    rows = []
    for name, make in GUIDES.items():
        guide = make(problem.model, ("pi1", "pi2", "rho"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VitoolsWarning)
            fit = svi(problem, guide, max_steps=4000)
        log_weights = fit.log_weights(DRAWS, 1).double()
        khat = khat_estimate(log_weights)
        rows.append(
            {
                "guide": name,
                "alpha": alpha,
                "K": 2,
                "kl": evidence - log_weights.mean().item(),
                "kl_standard_error": log_weights.std().item() / math.sqrt(DRAWS),
                "khat": khat.value,
                "khat_standard_error": khat.standard_error,
                "seconds": fit.seconds,
                "status": fit.status.label,
                "steps": len(fit.history),
            }
        )
        print(
            {k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True
        )
    return rows


def table(rows: list[Row], size: int, key: str) -> str:
    """Markdown: a line a guide, a column an α."""
    lines = ["| guide | " + " | ".join(f"α = {a:g}" for a in ALPHAS) + " |"]
    lines.append("|---" * (len(ALPHAS) + 1) + "|")
    for name in GUIDES:
        cells = [
            _cell(row, key)
            for a in ALPHAS
            for row in rows
            if (row["guide"], row["K"], row["alpha"]) == (name, size, a)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    least = [
        f"{row['least_kl_of_family']:.3f}"
        for a in ALPHAS
        for row in rows
        if (row["K"], row["alpha"]) == (size, a) and "least_kl_of_family" in row
    ]
    if key == "kl" and least:
        lines.append("| *least possible, Kumaraswamy sticks* | " + " | ".join(least) + " |")
    return "\n".join(lines)


def _cell(row: Row, key: str) -> str:
    value, error = row[key], row.get(f"{key}_standard_error", 0.0)
    if key == "seconds":
        return f"{value:.1f}"
    if key == "kl":
        return f"{value:.3f} ± {error:.3f}" if error else f"{value:.3f}"
    return f"{value:.2f} ± {error:.2f}"


def markdown(conjugate: list[Row], dice: list[Row]) -> str:
    parts = []
    for size in SIZES:
        parts.append(f"K = {size}, KL(q ‖ posterior) in nats\n\n" + table(conjugate, size, "kl"))
        parts.append(f"K = {size}, k̂\n\n" + table(conjugate, size, "khat"))
        parts.append(f"K = {size}, seconds\n\n" + table(conjugate, size, "seconds"))
    for key, what in (("kl", "KL(q ‖ posterior) in nats"), ("khat", "k̂"), ("seconds", "seconds")):
        parts.append(f"two dice, {what}\n\n" + table(dice, 2, key))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--part", choices=("dirichlet_multinomial", "two_dice"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "simplex_guides.json"
    parts = {"two_dice": dice_rows, "dirichlet_multinomial": lambda: conjugate_rows(options.steps)}
    made = {}
    for name, run in parts.items():
        if options.part in (None, name):
            began = time.process_time()
            rows = run()
            made[name] = {"rows": rows, "cpu_seconds": time.process_time() - began}
    result = json.loads(path.read_text()) if path.exists() else {}
    result |= made | {"draws": DRAWS, "steps": options.steps, "particles": PARTICLES}
    path.write_text(json.dumps(result, indent=1) + "\n")
    if all(name in result for name in parts):
        tables = markdown(*(result[name]["rows"] for name in ("dirichlet_multinomial", "two_dice")))
        (options.out / "simplex_guides.md").write_text(tables)


if __name__ == "__main__":
    main()
