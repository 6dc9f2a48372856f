"""An experiment as a Pyro model of its design, and what is believed before it is made.

A model is called as ``model(design)`` or ``model(design, y=None)``: sample statements for what is to be
learnt and for what will be seen, as ``pyro.contrib.oed`` has it. A design is a batch of measurements, the
first dim of a tensor counting them; the candidates of one measurement are a tensor ``[C, …]``, of which
each row is called as a batch of one.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from vitools.errors import ModelError, NotSupportedError, OptionError, first_words
from vitools.information.fisher_of_problem import refuse_factors_among
from vitools.isolation import isolated, seeded
from vitools.posterior import Posterior
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.problem.reading.program import name_of
from vitools.problem.sites import listed, nearest

Values = dict[str, Tensor]


def candidates(designs: object) -> list[Any]:
    """One design for each candidate, as the model is called with it."""
    if isinstance(designs, Tensor):
        if not designs.dim() or not len(designs):
            raise OptionError(
                f"designs: expected a tensor [C, …] with a row for each candidate, got shape "
                f"{list(designs.shape)}."
            )
        return [designs[i : i + 1] for i in range(len(designs))]
    if isinstance(designs, str | Mapping) or not isinstance(designs, Sequence) or not designs:
        raise OptionError(
            "designs: expected a tensor [C, …] or a list of designs, got "
            f"{'an empty list' if designs == [] else type(designs).__name__}."
        )
    return list(designs)


class Experiment:
    """A model of measurements, the names of what is seen, and a belief about its latents.

    Args:
        source: the model, believed as its priors say; or a fit of it, whose posterior is the belief.
        observations: sites that will be seen. If omitted, arguments of the model that are None by
            default and name a site; of a fit, what was observed.
        targets: latents to be learnt; all that are not summed out, if omitted.
    """

    def __init__(
        self,
        source: Posterior | Callable[..., Any],
        observations: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
    ) -> None:
        self.fit = source if isinstance(source, Posterior) else None
        self.model: Callable[..., Any] = source.problem.model if self.fit else source  # type: ignore[union-attr, assignment]
        if isinstance(source, Problem) or not callable(self.model):
            raise OptionError(
                "model: expected a Pyro model of the design, model(design), or a fit of one, got "
                f"{type(source).__name__}."
            )
        if self.fit is not None and self.fit.points:
            raise NotSupportedError(
                f"the fit is a point estimate of {listed(list(self.fit.points))}, which leaves nothing "
                "to be learnt. Fit with a guide that has widths."
            )
        named = _names("observations", observations)
        if named is None and self.fit is not None:
            named = tuple(self.fit.problem.observed)
        self.observations = named
        self.targets = _names("targets", targets)

    def at(self, design: Any, seed: int) -> "Candidate":
        """The experiment with one design."""
        with seeded(seed), isolated({"params": {}, "constraints": {}}, self.model), torch.no_grad():
            try:
                run = poutine.trace(poutine.uncondition(self.model)).get_trace(design)
            except Exception as error:
                raise ModelError(
                    f"the model raised {type(error).__name__} at design {_short(design)}: "
                    f"{first_words(error)}. It is called as model(design)."
                ) from error
        sites = {k: node for k, node in run.nodes.items() if node["type"] == "sample"}
        refuse_factors_among(sites, name_of(self.model))
        observations = self.observations or self._optional_arguments(sites)
        for name in observations:
            if name not in sites:
                raise OptionError(
                    f"observations: the model has no site '{name}' at design {_short(design)} (sites: "
                    f"{', '.join(sites)}).{nearest(name, sites)}"
                )
        data = {name: sites[name]["value"].detach() for name in observations}
        model = self.model

        @wraps(model, updated=())
        def conditioned(design: Any) -> Any:
            return poutine.condition(model, data=data)(design)

        problem = Problem(conditioned, design)
        if self.fit is not None and self.fit.problem.has_given_params:
            problem = problem.with_params(self.fit.problem.params)
        return Candidate(problem, self.fit, self.targets, self._of_each(design, sites, seed))

    def _of_each(self, design: Any, sites: Mapping[str, Any], seed: int) -> frozenset[str]:
        """Sites of which each measurement has its own: those that grow where it is made twice."""
        if self.fit is None or not isinstance(design, Tensor) or not design.dim():
            return frozenset()
        twice = torch.cat([design, design])
        with seeded(seed), isolated({"params": {}, "constraints": {}}, self.model), torch.no_grad():
            try:
                run = poutine.trace(poutine.uncondition(self.model)).get_trace(twice)
            except Exception:  # of whatever kind a model's are: it takes single measurements alone
                return frozenset()
        shapes = {
            k: node["value"].shape for k, node in run.nodes.items() if node["type"] == "sample"
        }
        return frozenset(k for k in sites if shapes.get(k) != sites[k]["value"].shape)

    def _optional_arguments(self, sites: Mapping[str, Any]) -> tuple[str, ...]:
        found = tuple(
            name
            for name, parameter in inspect.signature(self.model).parameters.items()
            if parameter.default is None and name in sites
        )
        if not found:
            raise OptionError(
                "observations: expected the names of the sites that will be seen (sites: "
                f"{', '.join(sites)}), got none, and the model has no argument of that kind, as "
                "model(design, y=None) has."
            )
        return found


class Candidate:
    """One design: draws of what is believed and of what would be seen, and densities of both.

    Attributes:
        problem: the model at this design, its data a placeholder.
        names: latents that draws hold: those of a density, and discrete ones among the targets.
        targets: of these, what is to be learnt.
        nuisances: the others.

    Args:
        of_each: sites of which each measurement has its own, whatever the fit has under that name.
    """

    def __init__(
        self,
        problem: Problem,
        fit: Posterior | None,
        targets: Sequence[str] | None,
        of_each: Collection[str] = (),
    ) -> None:
        self.problem, self.fit, self._of_each = problem, fit, frozenset(of_each)
        for name in targets or ():
            if name not in problem.latents:
                raise OptionError(
                    f"targets: no latent '{name}' (latents: {', '.join(problem.latents)})."
                    f"{nearest(name, problem.latents)}"
                )
        known = problem.drawn if fit is None else {k: problem.drawn[k] for k in self._shared()}
        self.targets = tuple(targets or known)
        self.names = tuple(dict.fromkeys([*problem.drawn, *self.targets]))
        self.nuisances = tuple(name for name in self.names if name not in self.targets)
        if not self.targets:
            raise NotSupportedError(
                f"model '{problem.name}' has no latents with a density to be learnt. Name discrete "
                "ones: targets=…"
            )

    def _shared(self) -> list[str]:
        """Latents of the fit that are those of the new measurement, too; the rest are its own."""
        assert self.fit is not None
        return [name for name in self.problem.drawn if self._is_shared(name)]

    def _is_shared(self, name: str) -> bool:
        assert self.fit is not None
        theirs = self.fit.problem.latents
        is_theirs = name in theirs and theirs[name].shape == self.problem.latents[name].shape
        return is_theirs and name not in self._of_each

    @property
    def is_the_fits(self) -> bool:
        """Whether the belief is of the fit's latents and no others."""
        if self.fit is None:
            return False
        return set(self._shared()) == set(self.names) == set(self.fit.problem.drawn)

    # ---- draws ---------------------------------------------------------------------------------

    def draws(self, num_samples: int, seed: int) -> Values:
        """``{site: [n, *shape]}`` of :attr:`names`, from the prior or the fit.

        Generators of this seed and the two after it are used up: outcomes need others, or noise and
        latents would be the same numbers.
        """
        if self.fit is None:
            drawn = self.problem.prior(num_samples, seed)
            return {name: drawn[name] for name in self.names}
        discrete = any(name in self.problem.discrete for name in self.targets)
        held = self.fit.sample(num_samples, seed, discrete=discrete)
        given = {k: v for k, v in held.items() if k in self.names and self._is_shared(k)}
        return self._completed(given, num_samples, seed + 2)

    def _completed(self, given: Values, num_samples: int, seed: int) -> Values:
        """With what is missing from ``given`` drawn as the model has it."""
        missing = [name for name in self.names if name not in given]
        if not missing:
            return {name: given[name] for name in self.names}
        found = self.problem._forward(given, num_samples, seed, self.names)
        return {name: found[name] for name in self.names}

    def nuisances_given(self, targets: Values, count: int, seed: int) -> Values:
        """``{site: [n, count, *shape]}``: draws of the others given each draw of the targets."""
        if self.fit is not None and any(name in self._shared() for name in self.nuisances):
            raise NotSupportedError(
                f"{listed(list(self.nuisances))} stand in the fit beside the targets, and what is "
                "believed of them given the targets is not known. Leave targets= out, or use "
                "method='laplace'."
            )
        size = next(iter(targets.values())).shape[0]
        wide = {k: targets[k].repeat_interleave(count, 0) for k in self.targets}
        found = self._completed(wide, size * count, seed)
        return {k: v.reshape(size, count, *v.shape[1:]) for k, v in found.items()}

    def outcomes(self, draws: Values, seed: int) -> Values:
        """``{observed site: [n, *shape]}``, one data set for each draw."""
        data = self.problem.predictive(draws, seed)
        return {name: data[name] for name in self.problem.observed}

    # ---- densities -----------------------------------------------------------------------------

    def log_likelihood(self, draws: Values, outcomes: Values) -> Tensor:
        """log p(y_i | θ_i), ``[n]``."""
        seen = self.problem.observed

        def once(draw: Values) -> Tensor:
            return self.problem.factors(draw).log_likelihood(seen)

        with torch.no_grad():
            return self.problem.map_draws(once, {**draws, **outcomes}).double()

    def log_likelihoods(self, draws: Values, outcomes: Values) -> Tensor:
        """log p(y_i | θ_j), ``[n of y, m of θ]``."""
        seen = self.problem.observed

        def of_draw(draw: Values) -> Tensor:
            def of_outcome(outcome: Values) -> Tensor:
                return self.problem.factors({**draw, **outcome}).log_likelihood(seen)

            return torch.vmap(of_outcome)(outcomes)

        with torch.no_grad():
            return self.problem.map_draws(of_draw, draws).double().mT

    def log_belief(self, draws: Values) -> Tensor:
        """log density of the belief at draws of all latents, ``[n]``."""
        if self.fit is not None:
            if not self.is_the_fits:
                raise NotSupportedError(
                    "the fit's latents and those of the new measurement differ "
                    f"({', '.join(self.fit.problem.drawn)}; {', '.join(self.names)}): there is no "
                    "density of the belief. Use method='nested'."
                )
            return self.fit.log_prob(draws).double()
        seen = self.problem.observed

        def once(draw: Values) -> Tensor:
            return self.problem.factors(draw).log_prior(seen)

        with torch.no_grad():
            return self.problem.map_draws(once, draws).double()

    def log_prior_at(self, vector: Tensor) -> Tensor:
        """log density of the prior at one unconstrained point ``[P]``, which can be differentiated."""
        space = self.space
        graph = self.problem.factors(space.to_values(vector))
        return graph.log_prior(self.problem.observed) + space.log_jacobian(vector)

    def refuse_nuisances(self, method: str) -> None:
        """Raise where the method needs all latents to be targets."""
        if self.nuisances:
            raise NotSupportedError(
                f"method '{method}' needs every latent to be a target; {listed(list(self.nuisances))} "
                "are none. Use method='nested', or leave targets= out."
            )

    @property
    def space(self) -> UnconstrainedSpace:
        """Where the latents are one vector of real numbers."""
        for name in self.names:
            if self.problem.latents[name].is_discrete:
                raise NotSupportedError(
                    f"target '{name}' is discrete: it has no coordinates. Use method='nested'."
                )
        return UnconstrainedSpace(self.problem)


def _names(option: str, given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else given
    if (
        not isinstance(names, Sequence)
        or not names
        or not all(isinstance(name, str) for name in names)
    ):
        raise OptionError(f"{option}: expected the name of a site or several, got {given!r}.")
    return tuple(names)


def _short(design: Any) -> str:
    return " ".join(repr(design).split())[:80]
