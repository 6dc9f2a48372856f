"""The methods the command line offers by name, each a thin call of an engine."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributions import constraints

from vitools import guides
from vitools.cli.target import Target
from vitools.conjugacy import ConjugateModel
from vitools.engines import cavi, exact, hand_derived, nuts, svi
from vitools.errors import NotConjugate, NotSupportedError, OptionError
from vitools.posterior import Posterior
from vitools.problem import Problem
from vitools.sites import Site, nearest
from vitools.unconstrained import UnconstrainedSpace


@dataclass(frozen=True)
class Method:
    """A row of the table. ``fit`` takes a target, a fit to start from, and common options."""

    label: str
    summary: str
    fit: Callable[..., Posterior]

    def run(self, target: Target, **options: Any) -> Posterior:
        """Fit ``target``; options are seed, progress and start."""
        return self.fit(target, **options)


RESTARTS = 10


def _cavi(target: Target, *, seed: int, progress: Any, start: Any) -> Posterior:
    return cavi(target.problem, restarts=RESTARTS, seed=seed, progress=progress)


def _cavi_joint(target: Target, *, seed: int, progress: Any, start: Any) -> Posterior:
    blocks = _joint_blocks(target.problem)
    if not blocks:
        raise NotSupportedError(
            f"model '{target.problem.name}' has no two discrete latents in the same plates."
        )
    return cavi(target.problem, joint=blocks, restarts=RESTARTS, seed=seed, progress=progress)


def _joint_blocks(problem: Problem) -> list[tuple[str, ...]]:
    """Discrete latents that share their plates, which one factor may hold together."""
    groups: dict[Any, list[str]] = {}
    for site in problem.discrete.values():
        groups.setdefault(site.plates, []).append(site.name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def _by_hand(target: Target, *, seed: int, progress: Any, start: Any) -> Posterior:
    derivation = getattr(target.problem.model, "hand_derived_cavi", None)
    accepted = inspect.signature(derivation).parameters if derivation else {}
    options = {"restarts": RESTARTS, "factorisation": "joint"}
    options = {name: value for name, value in options.items() if name in accepted}
    return hand_derived(target.problem, seed=seed, **options)


def _svi(guide: Any) -> Callable[..., Posterior]:
    def fit(target: Target, *, seed: int, progress: Any, start: Any) -> Posterior:
        return svi(target.problem, guide, seed=seed, progress=progress, start=start)

    return fit


def _own_guide(target: Target, *, seed: int, progress: Any, start: Any) -> Posterior:
    if target.guide is None:
        raise NotSupportedError(f"model '{target.problem.name}' brings no guide of its own.")
    rate = target.learning_rate
    optimizer = None if rate is None else lambda parameters: torch.optim.Adam(parameters, lr=rate)
    return svi(target.problem, target.guide, optimizer=optimizer, seed=seed, progress=progress)


def _nuts(target: Target, *, seed: int, progress: Any, start: Any) -> Posterior:
    return nuts(
        target.problem,
        num_samples=200,
        num_warmup=80,
        num_chains=2,
        start=start,
        seed=seed,
        progress=progress,
    )


def _exact(target: Target, *, seed: int, progress: Any, start: Any) -> Posterior:
    return exact(target.problem, seed=seed, progress=progress)


METHODS: dict[str, Method] = {
    "exact": Method("exact", "enumeration and quadrature, for small models", _exact),
    "cavi": Method("CAVI", "closed-form updates derived from the model, fully factorised", _cavi),
    "cavi-joint": Method(
        "CAVI joint", "the same with discrete latents of one plate in one factor", _cavi_joint
    ),
    "cavi-by-hand": Method(
        "CAVI by hand", "the model's own hand-derived updates, joint where derived", _by_hand
    ),
    "encoder": Method("SVI encoder", "the model's own amortised guide", _own_guide),
    "kumaraswamy": Method(
        "SVI Kumaraswamy", "Kumaraswamy sticks and intervals", _svi(guides.AutoKumaraswamy)
    ),
    "logistic-normal": Method(
        "SVI logistic normal", "softmax-Gaussian on simplexes", _svi(guides.AutoLogisticNormal)
    ),
    "dirichlet": Method(
        "SVI Dirichlet", "Dirichlet and Beta, implicit gradients", _svi(guides.AutoDirichlet)
    ),
    "normal": Method(
        "SVI normal", "independent Gaussians, transformed", _svi(guides.AutoMeanField)
    ),
    "multivariate": Method(
        "SVI multivariate",
        "one Gaussian with full covariance, transformed",
        _svi(guides.AutoMultivariate),
    ),
    "nuts": Method("NUTS", "the no-U-turn sampler", _nuts),
}


def find_method(name: str) -> Method:
    """A method by name, or an error that lists them."""
    if name not in METHODS:
        raise OptionError(
            f"no method '{name}' (methods: {', '.join(METHODS)}).{nearest(name, METHODS)}"
        )
    return METHODS[name]


def default_methods(target: Target) -> list[str]:
    """The methods worth comparing on this model, cheapest first, the reference last."""
    problem = target.problem
    if target.guide is not None:
        return ["encoder"]
    size = UnconstrainedSpace(problem).size
    names = ["exact"] if size <= 2 else []
    if _is_conjugate(problem):
        names.append("cavi")
        if _joint_blocks(problem):
            names.append("cavi-joint")
    if hasattr(problem.model, "hand_derived_cavi"):
        names.append("cavi-by-hand")
    if any(_is_bounded(site) for site in problem.continuous.values()):
        names += ["kumaraswamy", "logistic-normal"]
    elif problem.continuous:
        names += ["normal", "multivariate"]
    return names + (["nuts"] if problem.continuous and "exact" not in names else [])


def _is_conjugate(problem: Problem) -> bool:
    try:
        ConjugateModel(problem.model, problem.args, problem.kwargs)
    except (NotConjugate, NotSupportedError):
        return False
    return True


def _is_bounded(site: Site) -> bool:
    support = site.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support in (constraints.simplex, constraints.unit_interval)
