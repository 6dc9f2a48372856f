"""``guides=``: which sites of a model are given values, and by which guide."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from vitools.errors import (
    NotConjugateError,
    OptionError,
    VitoolsWarning,
    callers_level,
    clause,
)
from vitools.guides import (
    AutoDirichlet,
    AutoFlow,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
    AutoMultivariate,
    AutoMultivariateNormal,
    AutoNormal,
)
from vitools.isolation import ParamState, full_plates, isolated, seeded, snapshot
from vitools.posterior.guided import GuidePosterior, build_guide, drawn_sites, guide_log_density
from vitools.posterior.product import part_of
from vitools.problem import Problem
from vitools.problem.density.improper import StandIns
from vitools.problem.density.values import latent_site
from vitools.problem.density.vectorise import DrawMapper
from vitools.problem.sites import listed, nearest

Guides = Mapping[str | tuple[str, ...], Any]
"""``{site or (site, …): guide}``: a class, a Pyro guide over these sites, or a name."""
NAMES: dict[str, Any] = {
    "dirichlet": AutoDirichlet,
    "flow": AutoFlow,
    "kumaraswamy": AutoKumaraswamy,
    "logisticnormal": AutoLogisticNormal,
    "meanfield": AutoMeanField,
    "multivariate": AutoMultivariate,
    "multivariatenormal": AutoMultivariateNormal,
    "normal": AutoNormal,
}
RATE = 0.05  # of Adam, where a guide says nothing


def read_guides(problem: Problem, guides: Guides) -> dict[tuple[str, ...], Any]:
    """``guides`` with classes for names, or an error that says what is wrong with it."""
    if not isinstance(guides, Mapping):
        raise OptionError(
            "guides: expected {site: guide}, such as guides={'w': AutoNormal}, "
            f"got {type(guides).__name__}."
        )
    found: dict[tuple[str, ...], Any] = {}
    for key, guide in guides.items():
        sites = (key,) if isinstance(key, str) else tuple(key) if isinstance(key, tuple) else ()
        if not sites or not all(isinstance(name, str) for name in sites):
            raise OptionError(f"guides: expected a site or a tuple of sites as a key, got {key!r}.")
        for name in sites:
            site = latent_site(problem.latents, name, f"model '{problem.name}'")
            if site.is_discrete:
                raise OptionError(
                    f"guides: site '{name}' is discrete, and no gradient goes through its values. "
                    "Leave it out: it has a factor of its own."
                )
            if any(name in others for others in found) or sites.count(name) > 1:
                raise OptionError(f"guides: site '{name}' occurs twice. Give it one guide.")
        found[sites] = _named(guide, sites)
    if found and sum(map(len, found)) == len(problem.latents):
        raise OptionError(
            f"guides: with all latents of model '{problem.name}' on values nothing is left for "
            "coordinate ascent. svi(problem, guide) is the engine for that."
        )
    return found


def guides_by_default(
    problem: Problem, refusal: NotConjugateError, sites: tuple[str, ...]
) -> dict[tuple[str, ...], Any]:
    """A guide over the sites that keep a model from coordinate ascent, with a notice; none without such sites."""
    if not sites:
        return {}
    warnings.warn(
        f"model '{problem.name}': {_quoted(sites)} get{'s' * (len(sites) == 1)} values, draws of a "
        f"multivariate guide, because no rule takes the model as it is ({clause(refusal)}). "
        f"The bound is an estimate then; guides={{}} refuses instead.",
        VitoolsWarning,
        stacklevel=callers_level(),
    )
    return {sites: AutoMultivariate}


def _quoted(names: Iterable[str]) -> str:
    return listed([repr(name) for name in names])


def _named(guide: Any, sites: tuple[str, ...]) -> Any:
    if isinstance(guide, str):
        if guide not in NAMES:
            raise OptionError(
                f"guides: no guide {guide!r} for {_quoted(sites)} (names: "
                f"{', '.join(NAMES)}).{nearest(guide, NAMES)}"
            )
        return NAMES[guide]
    if not callable(guide):
        raise OptionError(
            f"guides: expected a guide for {_quoted(sites)}, a class such as AutoNormal of "
            f"vitools.guides, an instance or one of {', '.join(map(repr, NAMES))}, got {guide!r}."
        )
    return guide


class ValueGuide:
    """One guide over some sites, with parameters of its own.

    Attributes:
        problem: of its sites alone.
        parameters: unconstrained, by name, leaves of the graph of draws.
    """

    def __init__(self, problem: Problem, sites: tuple[str, ...], guide: Any, seed: int):
        self.sites, self.problem = sites, part_of(problem, sites)
        self.guide = build_guide(self.problem, guide)
        self._mapper = DrawMapper(None)
        with seeded(seed), isolated(None, self.guide, problem.model) as params, self._running():
            run = poutine.trace(self.guide).get_trace(*problem.args, **problem.kwargs)
        drawn = {name for name in drawn_sites(run) if name in problem.latents}
        if drawn != set(sites):
            raise OptionError(
                f"guides: the guide for {_quoted(sites)} draws "
                f"{_quoted(sorted(drawn)) or 'no latent'}. Give it a guide over "
                "exactly these sites, such as AutoNormal of vitools.guides."
            )
        self.params = snapshot(params)
        self.parameters: dict[str, Tensor] = {
            name: value for name, value in self.params["params"].items() if value.requires_grad
        }

    @property
    def title(self) -> str:
        """Sites and guide in words."""
        kind = getattr(self.guide, "__name__", type(self.guide).__name__)
        return f"{_quoted(self.sites)} by {kind}"

    @property
    def rate(self) -> float:
        return getattr(self.guide, "learning_rate", RATE)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with full_plates(), StandIns((self.problem.args, self.problem.kwargs)):
            yield

    @torch.enable_grad()
    def draws(self, count: int) -> tuple[dict[str, Tensor], Tensor]:
        """``{site: [count, *shape]}`` and log q ``[count]``, with the gradient of the parameters."""

        def once(_: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            run = poutine.trace(self.guide).get_trace(*self.problem.args, **self.problem.kwargs)
            values = {name: run.nodes[name]["value"] for name in self.sites}
            return values, guide_log_density(run)

        with isolated(self.params, self.guide, self.problem.model), self._running():
            return self._mapper(once, torch.zeros(count), randomness="different")

    def units(self) -> dict[str, Tensor]:
        """By how much a parameter moves q by a standard deviation, where the guide tells."""
        if not hasattr(self.guide, "units"):
            return {}
        with isolated(self.params, self.guide, self.problem.model), torch.no_grad():
            found = self.guide.units()
        prefix = f"{getattr(self.guide, '_pyro_name', '')}."
        return {prefix + name: unit for name, unit in found.items()}

    def posterior(self, problem: Problem, **common: Any) -> GuidePosterior:
        """The fitted guide, under the model's parameters of ``problem``."""
        own, of_model = self.params, problem.params
        params: ParamState = {
            part: {**of_model[part], **own[part]} for part in ("params", "constraints")
        }
        return GuidePosterior(self.problem, self.guide, params, **common)


@torch.enable_grad()
def joint_draws(guides: Sequence[ValueGuide], count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Draws of all guides and the sum of their log densities."""
    values: dict[str, Tensor] = {}
    total = torch.zeros(count, dtype=torch.float64)
    for guide in guides:
        drawn, log_q = guide.draws(count)
        values, total = values | drawn, total + log_q.double()
    return values, total
