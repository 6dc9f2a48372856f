"""The evidence lower bound, E_q[log p(x, θ) - log q(θ)], differentiated through its draws.

Pathwise (Kingma & Welling 2014): θ = g(ε, λ), and the derivative of the whole expression.

Sticking the landing (Roeder, Wu & Duvenaud 2017): the part ∂_λ log q(θ; λ) at fixed θ has mean 0
and is left out. The rest vanishes draw by draw where q is the posterior, so its noise dies out as
the fit becomes exact.

Analytic KL: E_q[log q(θ_s) - log p(θ_s)] in closed form where torch knows it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from vitools.engines.objectives.objective import (
    Objective,
    checked_guide_run,
    drawn_sites,
    guide_name,
    held,
    not_reparameterised,
    random_values,
    refuse_bad_count,
    refuse_not_reparameterised,
    refuse_unknown,
    run_guide,
)
from vitools.engines.objectives.particles import Particles
from vitools.engines.objectives.score import ScoreFunction
from vitools.errors import NotSupportedError
from vitools.posterior.guided import guide_log_density
from vitools.problem import Problem
from vitools.problem.sites import is_delta

GRADIENTS = ("pathwise", "sticking_the_landing")


@dataclass(frozen=True)
class Elbo:
    """The bound by ``num_particles`` independent draws, discrete latents summed out exactly.

    Called with a problem and a guide it gives an :class:`Objective`. A guide with draws that
    cannot be differentiated through is handed to
    :class:`~vitools.engines.objectives.ScoreFunction`.

    Args:
        gradient: ``"pathwise"`` or ``"sticking_the_landing"``; the second has less noise near the
            optimum where the guide's family (nearly) contains the posterior.
        analytic_kl: take KL(q(θ_s) ‖ p(θ_s)) in closed form for the sites where it is known and
            p(θ_s)'s parents are drawn before θ_s by the guide as well. Less noise where the prior
            dominates (encoders), more where the data do.
    """

    num_particles: int = 1
    gradient: str = "pathwise"
    analytic_kl: bool = False

    def __call__(self, problem: Problem, guide: Any) -> Objective:
        refuse_bad_count(self.num_particles, 1, "Elbo")
        refuse_unknown(self.gradient, GRADIENTS, "Elbo: gradient")
        sticks = self.gradient == "sticking_the_landing"
        if sticks and self.analytic_kl:
            raise NotSupportedError(
                "Elbo: sticking the landing cancels the noise of log q against that of log p, and "
                "with an analytic KL there is none left to cancel. Choose one of the two."
            )
        run = checked_guide_run(problem, guide, points=True)
        if not sticks and not self.analytic_kl and not_reparameterised(run):
            return ScoreFunction(self.num_particles)(problem, guide)
        refuse_not_reparameterised(run, guide, self.gradient.replace("_", " "))
        closed = _closed_form_sites(problem, guide, run) if self.analytic_kl else ()

        def once(_: Any) -> Tensor:
            guide_run = run_guide(problem, guide)
            graph = problem.factors_of(
                poutine.replay(problem.call, trace=guide_run), guide_run.nodes
            )
            loss = guide_log_density(guide_run, without=closed)
            if closed:
                graph.factors = [f for f in graph.factors if f.name not in closed]
                loss = loss + sum(_kl(guide_run, graph.trace, name) for name in closed)
            if sticks:
                loss = loss - without_value(score(problem, guide, guide_run))
            return loss - graph.log_density()

        if self.num_particles == 1:
            return Objective(lambda: once(None), True)
        particles = Particles(self.num_particles)
        return Objective(lambda: particles(once).mean(), True)


def score(problem: Problem, guide: Any, guide_run: Trace) -> Tensor:
    """log q at the draws of a trace, as a function of the guide's parameters alone."""
    fixed = {name: value.detach() for name, value in random_values(guide_run).items()}
    again = poutine.replay(guide, trace=held(guide_run, fixed))
    return guide_log_density(run_guide(problem, again))


def without_value(term: Tensor) -> Tensor:
    """Zero, with the derivative of ``term``."""
    return term - term.detach()


def _closed_form_sites(problem: Problem, guide: Any, guide_run: Trace) -> tuple[str, ...]:
    """Continuous latents whose KL torch knows and whose prior's parents come first in the guide."""
    drawn = list(drawn_sites(guide_run))
    graph = problem.factors_of(poutine.replay(problem.call, trace=guide_run), guide_run.nodes)
    # the graph's nodes have handed their scales to the factors
    as_written = poutine.trace(poutine.replay(problem.call, trace=guide_run)).get_trace()
    order = [name for name in graph.trace.nodes if name in drawn]
    alone = {f[0].name for f in graph.components() if len(f) == 1 and f[0].enumerated is None}
    found = []
    for i, name in enumerate(order):
        parents_first = set(order[:i]) <= set(drawn[: drawn.index(name)])
        if name not in alone or not parents_first or is_delta(guide_run.nodes[name]):
            continue
        if not weighed_alike(guide_run.nodes[name], as_written.nodes[name]):
            continue
        try:
            kl_divergence(guide_run.nodes[name]["fn"], graph.trace.nodes[name]["fn"])
        except NotImplementedError:
            continue
        found.append(name)
    if not found:
        raise NotSupportedError(
            f"Elbo: no latent of model '{problem.name}' has a KL divergence between guide "
            f"{guide_name(guide)} and prior in closed form. Leave analytic_kl out."
        )
    return tuple(found)


def weighed_alike(q: dict[str, Any], p: dict[str, Any]) -> bool:
    """Whether a weight times KL(q ‖ p) is what a site has in the bound: p may have one of its own."""
    ours, theirs = torch.as_tensor(q["scale"]), torch.as_tensor(p["scale"])
    return torch.equal(ours, theirs.to(ours))


def _kl(guide_run: Trace, model_run: Trace, name: str) -> Tensor:
    q, p = guide_run.nodes[name], model_run.nodes[name]
    return scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"], q["mask"]).sum()
