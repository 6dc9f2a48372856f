"""The evidence lower bound for guides with draws that carry no derivative.

The score function (Williams 1992; Ranganath, Gerrish & Blei 2014, "Black box variational
inference"): for z ~ q(z; λ) that is neither reparameterised nor summed out

    ∇ E_q[f] = E_q[∇f + Σ_s ∇ log q(z_s) · (f_s - b_s)],      f = log p(x, θ, z) - log q(θ, z).

Three things keep its variance down. The signal f_s holds only what z_s can reach: terms of its own
elements of its plates, and nothing that guide and model had settled before it (Rao-Blackwell). The
baseline b_s is the mean signal of the *other* draws (leave-one-out: Salimans & Knowles 2014; Kool,
van Hoof & Welling 2019) or a running mean of earlier ones. And the part of ∇f that is a score,
∇ log q(z_s), has mean zero and is left out.

A guide can bring a network of its own that predicts the signal from what is known before the draw
(Mnih & Gregor 2014, "Neural variational inference and learning in belief networks"), in Pyro's
words::

    pyro.module("baseline", network)
    pyro.sample("z", …, infer={"baseline": {"nn_baseline": network, "baseline_input": x}})

It is trained beside the bound by least squares, Σ (f_s - b(x))², and the other baselines then see
what it leaves over. The bound's value is not touched by it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.utils._pytree import tree_map

from vitools.engines.objectives.objective import (
    Objective,
    checked_guide_run,
    drawn_sites,
    not_reparameterised,
    refuse_bad_count,
    refuse_unknown,
    run_guide,
)
from vitools.engines.objectives.particles import Particles
from vitools.engines.objectives.slices import PlateLayout, SiteTerm
from vitools.errors import NotSupportedError, OptionError
from vitools.problem import Problem
from vitools.problem.density.enumeration import FactorGraph

BASELINES = ("leave_one_out", "running_mean", "none")
REMEMBERS = (
    "the baseline of draws without a derivative is a running mean of earlier steps; num_particles=2 "
    "needs none and is recorded"
)
MEMORY = 0.9  # of the running mean
NOWHERE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ScoreFunction:
    """The bound by ``num_particles`` draws; reparameterised sites are differentiated through.

    Args:
        baseline: ``"leave_one_out"`` (two draws at least), ``"running_mean"`` (of earlier steps,
            one number an element) or ``"none"``; by default the first where there are two draws,
            else the last where the guide brings networks for all its sites, else the second.
        rao_blackwellise: leave out of each signal what its site cannot reach.
    """

    num_particles: int = 1
    baseline: str | None = None
    rao_blackwellise: bool = True

    def __call__(self, problem: Problem, guide: Any) -> Objective:
        run = checked_guide_run(problem, guide)
        signals = _Signals(problem, guide, run, self.rao_blackwellise)
        alone = "none" if signals.all_predicted else "running_mean"
        baseline = self.baseline or ("leave_one_out" if self.num_particles > 1 else alone)
        refuse_unknown(baseline, BASELINES, "ScoreFunction: baseline")
        fewest = 2 if baseline == "leave_one_out" else 1
        refuse_bad_count(self.num_particles, fewest, f"ScoreFunction with baseline {baseline}")
        particles = Particles(self.num_particles)
        state: dict[str, Tensor] = {}
        centred: dict[str, Callable[[str, Tensor], Tensor]] = {
            "leave_one_out": lambda name, signal: _against_the_others(signal),
            "running_mean": lambda name, signal: _against_the_past(signal, state, name),
            "none": lambda name, signal: signal,
        }

        def loss() -> Tensor:
            bound, scores, learning, predicted = particles(signals.of_one_draw)
            total = bound.mean()
            for name, log_q in scores.items():
                left = learning[name] - predicted[name].detach()
                surrogate = (log_q * centred[baseline](name, left)).mean(0).sum()
                total = total + signals.weights[name] * (surrogate - surrogate.detach())
                error = (learning[name] - predicted[name]).square().mean(0).sum()
                total = total - (error - error.detach())
            return -total

        return Objective(loss, baseline != "running_mean", state=state, hindrance=REMEMBERS)


def _against_the_others(signal: Tensor) -> Tensor:
    """f_k less the mean of f_j, j ≠ k, along the first dim."""
    count = len(signal)
    return (signal - signal.mean(0)) * count / (count - 1)


def _against_the_past(signal: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """f less the running mean of earlier calls, which is then moved on."""
    now = signal.mean(0)
    past = state.get(name, torch.zeros_like(now))
    state[name] = MEMORY * past + (1 - MEMORY) * now if name in state else now
    return signal - past


def _network_of(guide_run: Trace, name: str) -> dict[str, Any]:
    """What ``infer["baseline"]`` says of a network, in Pyro's words; empty without one.

    Raises:
        NotSupportedError: it says something else.
    """
    named = guide_run.nodes[name]["infer"].get("baseline", {})
    said = {key: value for key, value in named.items() if value is not None and value is not False}
    if said.keys() - {"nn_baseline", "baseline_input"} or (said and "nn_baseline" not in said):
        raise NotSupportedError(
            f"site '{name}' of the guide: infer['baseline'] may hold 'nn_baseline', a network, and "
            f"'baseline_input', what it is given; got {', '.join(sorted(said))}. For a running mean "
            "use ScoreFunction(baseline='running_mean')."
        )
    return said


def _prediction(guide_run: Trace, name: str, signal: Tensor) -> Tensor:
    """The guide's own baseline ``[*plates]``, which may learn but not teach what it is given."""
    said = _network_of(guide_run, name)
    if not said:
        return torch.zeros_like(signal)
    given = tree_map(
        lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, said.get("baseline_input")
    )
    predicted = said["nn_baseline"](given)
    if predicted.numel() != signal.numel():
        raise OptionError(
            f"site '{name}' of the guide: its nn_baseline gives numbers of shape "
            f"{tuple(predicted.shape)}, expected one for each of {tuple(signal.shape)}."
        )
    return predicted.reshape(signal.shape)


class _Signals:
    """For one draw: the bound, and for each site without derivative log q and its signal.

    Attributes:
        all_predicted: whether the guide brings a network for each of these sites.
    """

    def __init__(self, problem: Problem, guide: Any, guide_run: Trace, selective: bool) -> None:
        self.problem, self.guide, self.selective = problem, guide, selective
        self.layout = PlateLayout(problem)
        self.names = not_reparameterised(guide_run)
        self.drawn = list(drawn_sites(guide_run))
        graph = self._graph(guide_run)
        self.model_order = list(graph.trace.nodes)
        plates = {t.sites[0]: t.plates for t in self.layout.guide_terms(guide_run)}
        self.plates = {name: plates[name] for name in self.names}
        networks = [_network_of(guide_run, name) for name in self.names]
        self.all_predicted = bool(networks) and all(networks)
        self.weights = {name: self.layout.weight(plates[name]) for name in self.names}

    def _graph(self, guide_run: Trace) -> FactorGraph:
        replayed = poutine.replay(self.problem.call, trace=guide_run)
        return self.problem.factors_of(replayed, guide_run.nodes)

    def of_one_draw(self, _: Any) -> tuple[Tensor, *tuple[dict[str, Tensor], ...]]:
        """The bound, and ``{site: [*plates]}`` of log q, of the signal, which is constant, and of what

        a network of the guide's predicts for it, 0 where there is none.
        """
        guide_run = run_guide(self.problem, self.guide)
        of_guide = {term.sites[0]: term for term in self.layout.guide_terms(guide_run)}
        of_model = self.layout.model_terms(self._graph(guide_run))
        bound = torch.zeros(())
        for term in of_model:
            bound = bound + self._signal(term, NOWHERE).sum()
        for name, term in of_guide.items():
            total = self._signal(term, NOWHERE).sum()
            bound = bound - (total.detach() if name in self.names else total)
        scores, learning, predicted = {}, {}, {}
        for name in self.names:
            scores[name] = of_guide[name].log_density
            signal = torch.zeros_like(scores[name])
            for term in of_model:
                if self._reaches_model(name, term):
                    signal = signal + self._signal(term, self.plates[name]).detach()
            for other in self.drawn[self._first_reached(name) :]:
                signal = signal - self._signal(of_guide[other], self.plates[name]).detach()
            learning[name] = signal
            predicted[name] = _prediction(guide_run, name, signal)
        return bound, scores, learning, predicted

    def _signal(self, term: SiteTerm, plates: frozenset[str]) -> Tensor:
        keep = plates if self.selective else NOWHERE
        return term.scale * self.layout.summed_to(term, keep)

    def _first_reached(self, name: str) -> int:
        """From which guide site on ``name`` can matter."""
        return self.drawn.index(name) if self.selective else 0

    def _reaches_model(self, name: str, term: SiteTerm) -> bool:
        """Whether the value of ``name`` can matter to some site of ``term``.

        It cannot where the model had run that far without it and all that the model had used by
        then was drawn before it in the guide.
        """
        if not self.selective or name not in self.model_order:
            return True
        last = max(self.model_order.index(site) for site in term.sites)
        settled = set(self.drawn[: self.drawn.index(name)])
        used = {site for site in self.model_order[: last + 1] if site in self.drawn}
        return not used <= settled
