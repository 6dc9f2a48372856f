"""Effective draws a second of NUTS: vitools, Pyro and NumPyro side by side.

    python benchmarks/nuts_speed.py [--draws 1000] [problem …]

Four chains, as many warm-up transitions as draws, one after another on one thread; Pyro's own
sampler, which is slow, runs one chain of a quarter of them. All is counted: reading the model,
compiling, warm-up. The figure is the smallest effective sample size (Geyer's, by
``pyro.ops.stats``) among all numbers of all latents, divided by the seconds.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpyro
import torch
from cavi_timing import report
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size
from svi_numpyro import regression as numpyro_regression
from svi_numpyro import schools as numpyro_schools
from svi_problems import draws, regression, schools

from vitools import Problem, nuts
from vitools.isolation import isolated, seeded

CHAINS = 4
Draws = dict[str, torch.Tensor]
Run = Callable[[int], Draws]
"""From a number of draws a chain to ``{latent: [chains, draws, …]}``."""


def vitools_run(model: Any, args: Any, sampler: str) -> Run:
    def run(count: int) -> Draws:
        problem = Problem(model, *args)
        fit = nuts(problem, num_samples=count, num_warmup=count, num_chains=CHAINS, sampler=sampler)
        return fit.draws

    return run


def pyro_run(model: Any, args: Any) -> Run:
    def run(count: int) -> Draws:
        few = count // 4
        with isolated(), seeded(0):
            chains = MCMC(NUTS(model), num_samples=few, warmup_steps=few, disable_progbar=True)
            chains.run(*args)
            return chains.get_samples(group_by_chain=True)

    return run


def numpyro_run(model: Any, args: Any) -> Run:
    arrays = [a.numpy() for a in args]

    def run(count: int) -> Draws:
        chains = numpyro.infer.MCMC(
            numpyro.infer.NUTS(model),
            num_warmup=count,
            num_samples=count,
            num_chains=CHAINS,
            chain_method="sequential",
            progress_bar=False,
        )
        chains.run(jax.random.PRNGKey(0), *arrays)
        found = chains.get_samples(group_by_chain=True)
        return {name: torch.tensor(jax.device_get(values)) for name, values in found.items()}

    return run


def problems() -> dict[str, tuple[Any, Any, tuple[Any, ...]]]:
    """Name → Pyro model, NumPyro model, data; those of ``svi_problems.py``."""
    x = draws(1000, 10)
    y = x @ draws(10, seed=2) + 0.5 * draws(1000, seed=3)
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return {
        "schools": (schools, numpyro_schools, (effects, errors)),
        "regression": (regression, numpyro_regression, (x, y)),
    }


def smallest_ess(found: Draws) -> float:
    return min(
        float(effective_sample_size(v.double(), chain_dim=0, sample_dim=1).min())
        for v in found.values()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("problems", nargs="*")
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, (model, other, args) in problems().items():
        if options.problems and name not in options.problems:
            continue
        engines = {
            "vitools nuts, nutpie": vitools_run(model, args, "nutpie"),
            "vitools nuts, Pyro's sampler": vitools_run(model, args, "pyro"),
            "NumPyro NUTS": numpyro_run(other, args),
            "Pyro NUTS": pyro_run(model, args),
        }
        for label, run in engines.items():
            began = time.perf_counter()
            found = run(options.draws)
            seconds = time.perf_counter() - began
            ess = smallest_ess(found)
            rows.append(
                {
                    "problem": name,
                    "engine": label,
                    "seconds": seconds,
                    "smallest ESS": round(ess),
                    "ESS a second": round(ess / seconds, 1),
                }
            )
    report("nuts_speed", rows)


if __name__ == "__main__":
    main()
