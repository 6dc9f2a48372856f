"""The importance-weighted bound, E log 1/K Σ_k w_k with w_k = p(x, θ_k) / q(θ_k).

It rises from the ELBO (K = 1) to log p(x) (Burda, Grosse & Salakhutdinov 2016, "Importance
weighted autoencoders"). Three gradients:

- pathwise, Σ_k w̃_k ∂ log w_k with w̃ = w / Σ w; its signal-to-noise ratio *falls* as K grows
  (Rainforth et al. 2018);
- doubly reparameterised (Tucker et al. 2018, DReG): Σ_k w̃_k² (∂ log w_k / ∂θ_k) (∂θ_k / ∂λ) for
  what reaches the bound through the draws, and w̃_k as before for parameters of the model;
- leave-one-out (Mnih & Rezende 2016, VIMCO) for draws that cannot be differentiated through:
  ∂ log q(θ_k) times the bound less what it would be with w_k replaced by the others' geometric
  mean.

Weights to a power, 1/(1-α) E log 1/K Σ_k w_k^(1-α), give a bound between this one (α = 0) and the
ELBO (α → 1) that tends to Rényi's (Li & Turner 2016; Daudel et al. 2023, "Alpha-divergence
variational inference meets importance weighted auto-encoders"). Then w̃ = w^(1-α) / Σ w^(1-α), and
α w̃_k + (1-α) w̃_k² takes the place of w̃_k².

Where all latents and data lie in common plates the elements are independent given the parameters,
and each has weights of its own: Σ_n log 1/K Σ_k w_nk. Minibatches of such plates are unbiased.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from vitools.engines.objectives.elbo import Elbo, without_value
from vitools.engines.objectives.objective import (
    Objective,
    checked_guide_run,
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
from vitools.engines.objectives.slices import PlateLayout, SiteTerm
from vitools.errors import NotSupportedError, OptionError
from vitools.problem import Problem
from vitools.problem.sites import is_subsample

GRADIENTS = ("doubly_reparameterised", "pathwise", "leave_one_out")


@dataclass(frozen=True)
class ImportanceWeighted:
    """The bound by ``num_particles`` draws for each element, discrete latents summed out exactly.

    Args:
        gradient: ``"doubly_reparameterised"``, ``"pathwise"`` or ``"leave_one_out"`` (the choice
            for guides whose draws carry no derivative). By default the first where the guide
            allows it, else the last.
        alpha: of Rényi's divergence, at least 0 and below 1: less variance, a lower bound.
    """

    num_particles: int
    gradient: str | None = None
    alpha: float = 0.0

    def __call__(self, problem: Problem, guide: Any) -> Objective:
        refuse_bad_count(self.num_particles, 1, "ImportanceWeighted")
        if not 0 <= self.alpha < 1:
            raise OptionError(
                f"ImportanceWeighted: expected 0 ≤ alpha < 1, got {self.alpha}. The ELBO is "
                "what alpha = 1 would be: use Elbo()."
            )
        if self.gradient == "sticking_the_landing":
            raise NotSupportedError(
                "ImportanceWeighted: sticking the landing is biased for more than one weight. Use "
                "gradient='doubly_reparameterised', which is what it becomes there."
            )
        if self.num_particles == 1:
            return Elbo()(problem, guide)
        run = checked_guide_run(problem, guide)
        gradient = self.gradient or GRADIENTS[2 if not_reparameterised(run) else 0]
        refuse_unknown(gradient, GRADIENTS, "ImportanceWeighted: gradient")
        if gradient != "leave_one_out":
            refuse_not_reparameterised(run, guide, gradient.replace("_", " "))
        weights = _Weights(problem, guide, run, self.num_particles, self.alpha)
        return Objective(getattr(weights, gradient), True, self._label)

    @property
    def _label(self) -> str:
        power = f", alpha {self.alpha}" if self.alpha else ""
        return f"IW bound of {self.num_particles}{power}"


class _Weights:
    """log w, ``[K, *rank]`` with the sizes of the common plates, and the losses made of it."""

    def __init__(
        self, problem: Problem, guide: Any, guide_run: Trace, count: int, alpha: float
    ) -> None:
        self.problem, self.guide, self.template = problem, guide, guide_run
        self.alpha = alpha
        self.count, self.layout = count, PlateLayout(problem)
        self.draws, self.weights = Particles(count), Particles(count)
        self.has_minibatch = any(p.subsample_size < p.size for p in problem.plates.values())
        terms = [*self._model_terms(guide_run, None), *self.layout.guide_terms(guide_run)]
        self.common = frozenset.intersection(*(term.plates for term in terms))
        self.minibatch_weight = self.layout.weight(self.common)
        self._refuse_unweighable(terms)

    def _refuse_unweighable(self, terms: list[SiteTerm]) -> None:
        for term in terms:
            if not math.isclose(term.scale, 1.0, rel_tol=1e-6):
                raise NotSupportedError(
                    f"site {', '.join(map(repr, term.sites))} stands under poutine.scale, with "
                    "which importance weights have no meaning. Use plate(..., subsample_size=…) "
                    "for minibatches, or Elbo()."
                )
            for name in term.plates - self.common:
                plate = self.problem.plates[name]
                if plate.subsample_size < plate.size:
                    raise NotSupportedError(
                        f"plate '{name}' is a minibatch, but model '{self.problem.name}' or guide "
                        f"{guide_name(self.guide)} has sites outside it, so that a weight needs all "
                        f"{plate.size} elements. Use Elbo(), or the whole plate."
                    )

    # ---- losses ------------------------------------------------------------------------------

    def pathwise(self) -> Tensor:
        log_w, _ = self._own_weights()
        return -self._bound(log_w)

    def leave_one_out(self) -> Tensor:
        log_w, log_q = self._own_weights()
        fixed = log_w.detach()
        others = (fixed.sum(0) - fixed) / (self.count - 1)
        own = torch.eye(self.count, dtype=torch.bool, device=fixed.device)
        own = own.reshape(own.shape + (1,) * self.layout.rank)
        signal = self._log_mean(fixed, 0) - self._log_mean(torch.where(own, others, fixed), 1)
        surrogate = (log_q * signal).sum() * self.minibatch_weight
        return -self._bound(log_w) - without_value(surrogate)

    def doubly_reparameterised(self) -> Tensor:
        minibatch = self._minibatch()
        draws = self.draws(lambda _: random_values(self._run_guide(minibatch)))
        share = _Share(self.alpha)
        for name, value in draws.items():
            if value.requires_grad:
                value.register_hook(partial(share.of_gradient, self.template.nodes[name]))

        def once(values: dict[str, Tensor]) -> Tensor:
            fixed = {name: value.detach() for name, value in values.items()}
            run, fixed_run = (self._run_guide(minibatch, at) for at in (values, fixed))
            return self._log_w(run, minibatch) + without_value(self._log_q(fixed_run))

        log_w = self.weights(once, draws)
        share.weights = ((1 - self.alpha) * log_w.detach()).softmax(0)
        surrogate = (share.weights * log_w).sum() * self.minibatch_weight
        return -self._bound(log_w.detach()) - without_value(surrogate)

    # ---- what they are made of ---------------------------------------------------------------

    def _bound(self, log_w: Tensor) -> Tensor:
        return self._log_mean(log_w, 0).sum() * self.minibatch_weight

    def _log_mean(self, log_w: Tensor, dim: int) -> Tensor:
        """log (1/K Σ w^(1-α))^(1/(1-α)) along ``dim``."""
        power = 1 - self.alpha
        return ((power * log_w).logsumexp(dim) - math.log(self.count)) / power

    def _own_weights(self) -> tuple[Tensor, Tensor]:
        """log w, and log q of the draws without a derivative, of K fresh draws."""
        minibatch = self._minibatch()
        names = not_reparameterised(self.template)

        def once(_: Any) -> tuple[Tensor, Tensor]:
            run = self._run_guide(minibatch)
            return self._log_w(run, minibatch), self._log_q(run, names)

        return self.weights(once)

    def _log_w(self, guide_run: Trace, minibatch: Trace | None) -> Tensor:
        log_p = self._summed(self._model_terms(guide_run, minibatch))
        return log_p - self._log_q(guide_run)

    def _log_q(self, guide_run: Trace, names: Collection[str] | None = None) -> Tensor:
        terms = self.layout.guide_terms(guide_run)
        return self._summed([t for t in terms if names is None or t.sites[0] in names])

    def _summed(self, terms: list[SiteTerm]) -> Tensor:
        parts = [self.layout.summed_to(term, self.common) for term in terms]
        sizes = [1] * self.layout.rank
        for name in self.common:
            plate = self.problem.plates[name]
            sizes[plate.dim] = plate.subsample_size
        return sum(parts, torch.zeros(())).expand(sizes)

    def _run_guide(self, minibatch: Trace | None, values: dict[str, Tensor] | None = None) -> Trace:
        guide = self.guide
        if values is not None:
            guide = poutine.replay(guide, trace=held(self.template, values))
        if minibatch is not None:
            guide = poutine.replay(guide, trace=minibatch)
        return run_guide(self.problem, guide)

    def _model_terms(self, guide_run: Trace, minibatch: Trace | None) -> list[SiteTerm]:
        model = poutine.replay(self.problem.call, trace=guide_run)
        if minibatch is not None:
            model = poutine.replay(model, trace=minibatch)
        return self.layout.model_terms(self.problem.factors_of(model, guide_run.nodes))

    def _minibatch(self) -> Trace | None:
        """The choice of elements that all K draws share.

        The latents are held at old values meanwhile: noise that nothing uses would be left out of
        a recorded graph, whose draws would then be others than the model's.
        """
        if not self.has_minibatch:
            return None
        old = {name: value.detach() for name, value in random_values(self.template).items()}
        guide_run = self._run_guide(None, old)
        model_run = poutine.trace(poutine.replay(self.problem.call, trace=guide_run)).get_trace()
        chosen = Trace()
        for name, node in model_run.nodes.items():
            if node["type"] == "sample" and is_subsample(node):
                chosen.add_node(name, **node)
        return chosen


class _Share:
    """Multiplies what flows back through each draw by α + (1-α) w̃, known by then."""

    weights: Tensor | None = None

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def of_gradient(self, node: Any, gradient: Tensor) -> Tensor:
        """``[K, *batch, *event]``, by the weights of the plates within the batch."""
        if self.weights is None:  # Particles tries whether there is a gradient at all
            return gradient
        event = node["fn"].event_dim
        batch = gradient.dim() - 1 - event
        tail = list(self.weights.shape[1:])[-batch:] if batch else []
        shape = [len(self.weights), *[1] * (batch - len(tail)), *tail, *[1] * event]
        return gradient * (self.alpha + (1 - self.alpha) * self.weights).reshape(shape)
