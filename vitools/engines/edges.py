"""Where the support of data moves with a latent: what engines say of the edge beyond which p is 0.

y ~ Uniform(0, θ) is impossible at θ < y. The posterior ends there with a jump, and a Gaussian q has
mass beyond it whatever its parameters: E_q[log p] = -∞, so there is no bound to climb.
"""

import torch

from vitools.errors import NotSupportedError
from vitools.posterior.base import Posterior
from vitools.problem import Problem
from vitools.problem.sites import listed

EDGE_REMEDY = (
    "write the latents so that all their values leave the data possible (e.g. θ = max(y) + a positive "
    "latent), or use a guide of svi() that draws them so, nuts(), or exact() for few latents"
)
TRIED = 1000  # draws among which one beyond the edge is looked for


def edge_words(problem: Problem) -> str:
    """What to know of a model whose data are impossible at some values of its latents; or nothing."""
    if not problem.moving_ends:
        return ""
    sites = listed([f"'{name}'" for name in sorted(problem.moving_ends)])
    return (
        f"the support of site {sites} may move with the latents; where it leaves data outside, their "
        "density is 0"
    )


def refuse_beyond_edges(fit: Posterior, engine: str) -> None:
    """Raise where a fit draws latents at which the data are impossible."""
    problem = fit.problem
    if not problem.moving_ends:
        return
    with torch.no_grad():
        densities = problem.log_joint(fit.sample(TRIED))
    share = float((densities == -torch.inf).double().mean())
    if share:
        raise NotSupportedError(
            f"model '{problem.name}': {edge_words(problem)}, and {share:.1%} of the draws of the "
            f"Gaussian that {engine}() found lie there, so that its bound is -inf: {EDGE_REMEDY}."
        )
