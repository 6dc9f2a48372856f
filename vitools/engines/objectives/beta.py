"""The bound with its KL terms weighted, or with some of them for free.

    E_q[log p(x | z)] - β Σ_s max(λ N_s, KL_s),    KL_s = E_q[log q(z_s) - log p(z_s)]

β below 1 lets a model learn to use its latents before it pays for them in full; above 1 it pays
for latents that are independent and few (Higgins et al. 2017, "beta-VAE"). λ are free bits (Kingma
et al. 2016, "Improved variational inference with inverse autoregressive flow"): a latent site
costs nothing more for its first λ nats an element, so it has no reason to die out. N_s is the
number of elements of the site's plates; the mean over them, of a minibatch where there is one, is
what is held against λ.

Only the gradient is that of this expression. The value that a run records is the bound itself,
β = 1 and λ = 0, and so are the numbers that a fit is judged by: model and guide are left as they are.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from vitools.engines.objectives.elbo import without_value
from vitools.engines.objectives.objective import (
    Objective,
    checked_guide_run,
    drawn_sites,
    guide_name,
    refuse_bad_count,
    refuse_not_reparameterised,
    run_guide,
)
from vitools.engines.objectives.particles import Particles
from vitools.errors import NotSupportedError, OptionError
from vitools.problem import Problem


@dataclass(frozen=True)
class BetaElbo:
    """The bound by ``num_particles`` draws, its KL terms weighted by ``beta``.

    A KL is taken in closed form where it is known and the guide draws what the prior depends on
    before the site; else at the draw. Discrete latents that are summed out have no such term.

    Args:
        beta: weight of all KL terms.
        free_bits: λ in nats, for each latent site and element of its plates.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    num_particles: int = 1

    def __call__(self, problem: Problem, guide: Any) -> Objective:
        refuse_bad_count(self.num_particles, 1, "BetaElbo")
        if not (0 <= self.beta < math.inf and 0 <= self.free_bits < math.inf):
            raise OptionError(
                f"BetaElbo: expected beta and free_bits of at least 0, got {self.beta} and "
                f"{self.free_bits}."
            )
        if problem.discrete:
            raise NotSupportedError(
                f"BetaElbo: {', '.join(map(repr, problem.discrete))} of model '{problem.name}' "
                "are summed out, together with what depends on them, and have no KL to weight. "
                "Use Elbo()."
            )
        run = checked_guide_run(problem, guide)
        refuse_not_reparameterised(run, guide, "BetaElbo")
        helpers = [name for name in drawn_sites(run) if name not in problem.latents]
        if self.free_bits and helpers:
            raise NotSupportedError(
                f"BetaElbo: guide {guide_name(guide)} draws {', '.join(map(repr, helpers))} by the "
                "way, so that no KL can be told for each latent. Leave free_bits out, or use a "
                "guide that draws the latents themselves."
            )

        def cost(name: str, kl: Tensor) -> Tensor:
            if not self.free_bits:
                return self.beta * kl
            free = self.free_bits * problem.latents[name].batch_shape.numel()
            return self.beta * kl.clamp(min=free)

        def once(_: Any) -> Tensor:
            guide_run = run_guide(problem, guide)
            model_run = poutine.trace(poutine.replay(problem.call, trace=guide_run)).get_trace()
            kls = _kl_terms(guide_run, model_run)
            likelihood = _log_likelihood(model_run)
            loss = torch.stack(list(kls.values())).sum() - likelihood
            costs = torch.stack([cost(name, kl) for name, kl in kls.items()]).sum()
            return loss.detach() + without_value(costs - likelihood)

        particles = Particles(self.num_particles)
        return Objective(lambda: particles(once).mean(), True)


def _kl_terms(guide_run: Trace, model_run: Trace) -> dict[str, Tensor]:
    """Σ over its plates of log q - log p for each site drawn, by name; minibatches weighted."""
    drawn, terms = drawn_sites(guide_run), {}
    stated = [name for name in model_run.nodes if name in drawn]
    for name, q in drawn.items():
        p = model_run.nodes.get(name)
        if p is None:  # drawn for the guide's own use: its density is part of log q
            terms[name] = _summed(q, q["fn"].log_prob(q["value"]))
            continue
        parents = set(stated[: stated.index(name)])
        known = parents <= set(list(drawn)[: list(drawn).index(name)])
        kl = _closed_form(q, p) if known else None
        if kl is None:
            log_q, log_p = (node["fn"].log_prob(node["value"]) for node in (q, p))
            terms[name] = _summed(q, log_q) - _summed(p, log_p)
        else:
            terms[name] = _summed(q, kl)
    return terms


def _closed_form(q: dict[str, Any], p: dict[str, Any]) -> Tensor | None:
    try:
        return kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        return None


def _log_likelihood(model_run: Trace) -> Tensor:
    nodes = [n for n in model_run.nodes.values() if n["type"] == "sample" and n["is_observed"]]
    return torch.stack([_summed(n, n["fn"].log_prob(n["value"])) for n in nodes]).sum()


def _summed(node: dict[str, Any], terms: Tensor) -> Tensor:
    return scale_and_mask(terms, node["scale"], node["mask"]).sum()
