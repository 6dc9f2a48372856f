"""The bound with its KL terms weighted, or with some of them for free.

    E_q[log p(x | z)] - β Σ_g max(λ N_g, KL_g),    KL_g = E_q[log q(z_g) - log p(z_g)]

β below 1 lets a model learn to use its latents before it pays for them in full; above 1 it pays
for latents that are independent and few (Higgins et al. 2017, "beta-VAE"). λ are free bits (Kingma
et al. 2016, "Improved variational inference with inverse autoregressive flow"): a group of latents
costs nothing more for its first λ nats an element, so it has no reason to die out. A group g is a
latent site, or one dimension of a site whose dimensions are independent in guide and prior: a whole
site can spend its free nats on a few of them. N_g is the number of elements of the site's plates;
the mean over them, of a minibatch where there is one, is what is held against λ.

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

from vitools.engines.objectives.elbo import weighed_alike, without_value
from vitools.engines.objectives.objective import (
    Objective,
    checked_guide_run,
    drawn_sites,
    guide_name,
    refuse_bad_count,
    refuse_not_reparameterised,
    refuse_unknown,
    run_guide,
)
from vitools.engines.objectives.particles import Particles
from vitools.errors import NotSupportedError, OptionError
from vitools.problem import Problem

GROUPS = ("site", "dimension")


@dataclass(frozen=True)
class BetaElbo:
    """The bound by ``num_particles`` draws, its KL terms weighted by ``beta``.

    A KL is taken in closed form where it is known and the guide draws what the prior depends on
    before the site; else at the draw. Discrete latents that are summed out have no such term.

    Args:
        beta: weight of all KL terms.
        free_bits: λ in nats, for each group of latents and element of its plates.
        free_bits_per: what a group is, ``"site"`` or ``"dimension"``.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    num_particles: int = 1
    free_bits_per: str = "site"

    def __call__(self, problem: Problem, guide: Any) -> Objective:
        refuse_bad_count(self.num_particles, 1, "BetaElbo")
        refuse_unknown(self.free_bits_per, GROUPS, "BetaElbo: free_bits_per")
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
        split = bool(self.free_bits) and self.free_bits_per == "dimension"
        if split:
            model_run = poutine.trace(poutine.replay(problem.call, trace=run)).get_trace()
            for name in problem.latents:
                _refuse_dependent_dimensions(name, run.nodes[name], model_run.nodes[name])

        def cost(name: str, kl: Tensor) -> Tensor:
            if not self.free_bits:
                return self.beta * kl
            free = self.free_bits * problem.latents[name].batch_shape.numel()
            return self.beta * kl.clamp(min=free)

        def once(_: Any) -> Tensor:
            guide_run = run_guide(problem, guide)
            model_run = poutine.trace(poutine.replay(problem.call, trace=guide_run)).get_trace()
            kls = _kl_terms(guide_run, model_run, split)
            likelihood = _log_likelihood(model_run)
            loss = torch.stack([kl.sum() for kl in kls.values()]).sum() - likelihood
            costs = torch.stack([cost(name, kl).sum() for name, kl in kls.items()]).sum()
            return loss.detach() + without_value(costs - likelihood)

        particles = Particles(self.num_particles)
        return Objective(lambda: particles(once).mean(), True)


def _kl_terms(guide_run: Trace, model_run: Trace, split: bool) -> dict[str, Tensor]:
    """Σ over its plates of log q - log p for each site drawn, by name; minibatches weighted.

    A number, or with ``split`` one for each dimension of a draw, of the event's shape.
    """
    drawn, terms = drawn_sites(guide_run), {}
    stated = [name for name in model_run.nodes if name in drawn]
    for name, q in drawn.items():
        value, fn_q = q["value"], _elementwise(q) if split else q["fn"]
        own = q["fn"].event_dim if split else 0
        p = model_run.nodes.get(name)
        if p is None:  # drawn for the guide's own use: its density is part of log q
            terms[name] = _summed(q, fn_q.log_prob(value), own)
            continue
        fn_p = _elementwise(p) if split else p["fn"]
        parents = set(stated[: stated.index(name)])
        known = parents <= set(list(drawn)[: list(drawn).index(name)])
        kl = _closed_form(fn_q, fn_p) if known and weighed_alike(q, p) else None
        if kl is None:
            log_q, log_p = fn_q.log_prob(value), fn_p.log_prob(value)
            terms[name] = _summed(q, log_q, own) - _summed(p, log_p, own)
        else:
            terms[name] = _summed(q, kl, own)
    return terms


def _elementwise(node: dict[str, Any]) -> Any:
    """The distribution of a site with its independent dimensions as batch."""
    fn = node["fn"]
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn


def _refuse_dependent_dimensions(name: str, *nodes: dict[str, Any]) -> None:
    for node, where in zip(nodes, ("guide", "model"), strict=True):
        fn = _elementwise(node)
        if fn.event_dim:
            raise NotSupportedError(
                f"BetaElbo: the dimensions of '{name}' are not independent in the {where}, a "
                f"{type(fn).__name__}, and have no KL each. Use free_bits_per='site'."
            )


def _closed_form(q: Any, p: Any) -> Tensor | None:
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _log_likelihood(model_run: Trace) -> Tensor:
    nodes = [n for n in model_run.nodes.values() if n["type"] == "sample" and n["is_observed"]]
    return torch.stack([_summed(n, n["fn"].log_prob(n["value"])) for n in nodes]).sum()


def _summed(node: dict[str, Any], terms: Tensor, kept: int = 0) -> Tensor:
    """Σ over all dims but the last ``kept``, by the site's scale and mask."""
    # those first, because scale and mask have the shape of the others
    terms = terms.movedim(tuple(range(-kept, 0)), tuple(range(kept)))
    weighted = scale_and_mask(terms, node["scale"], node["mask"])
    return weighted.flatten(kept).sum(kept) if weighted.dim() > kept else weighted
