"""Which stochastic layers of a hierarchical VAE stay alive: KL and active units of each.

    python benchmarks/vae_layers.py [--steps 6000]

The embedded digits (binarised, 8×8) with one, two and three layers, trained by the ELBO, by the
importance-weighted bound of ten draws, and by the ELBO with free bits; all for the same number of steps
on minibatches of 100. Bounds are of held-out images in nats (500 draws), KL and active units of each
layer of the ELBO on them, bottom layer first.
"""

import argparse
import time

from cavi_timing import report

from vitools import Problem, svi
from vitools.engines.objectives import BetaElbo, Elbo, ImportanceWeighted
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import (
    active_units,
    average,
    elbo_terms,
    importance_weighted_log_likelihood,
    load,
)

LAYERS = {
    1: ((32,), ((128,),)),
    2: ((32, 8), ((128,), (64,))),
    3: ((32, 16, 8), ((128,), (64,), (64,))),
}
OBJECTIVES = {
    "ELBO": Elbo(),
    "IW, 10 draws": ImportanceWeighted(10),
    "ELBO, free bits 1": BetaElbo(free_bits=1.0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    options = parser.parse_args()
    data = load()
    rows = []
    for num_layers, (latent_dims, hidden) in LAYERS.items():
        for name, objective in OBJECTIVES.items():
            if num_layers == 1 and name.startswith("ELBO,"):
                continue
            vae = HierarchicalVAE(64, latent_dims, hidden)
            began = time.perf_counter()
            svi(
                Problem(vae.model, data.train, batch_size=100),
                vae.guide,
                objective=objective,
                learning_rate=1e-3,
                max_steps=options.steps,
                compile=False,
            )
            seconds = time.perf_counter() - began
            mean, error = average(importance_weighted_log_likelihood(vae, data.held_out).value)
            terms, units = elbo_terms(vae, data.held_out), active_units(vae, data.held_out)
            sites = [f"z{layer}" for layer in range(1, num_layers + 1)]
            rows.append(
                {
                    "layers": " ".join(map(str, latent_dims)),
                    "objective": name,
                    "nats": mean,
                    "±": error,
                    "ELBO": terms.elbo.mean().item(),
                    "KL": " ".join(f"{terms.kls[site].mean():.2f}" for site in sites),
                    "active": " ".join(str(units[site]) for site in sites),
                    "s": seconds,
                }
            )
            print(rows[-1], flush=True)
    report("vae_layers", rows)


if __name__ == "__main__":
    main()
