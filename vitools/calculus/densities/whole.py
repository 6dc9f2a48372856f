"""A site's whole log density as one function of a single scalar latent.

Where a distribution has no formula in expressions, or its formula needs more than the calculus has,
its log density can still be one statistic: of the latent itself under a prior with known parameters,
or of the one latent that the parameters of an observation depend on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

from vitools.calculus.algebra.atoms import LOG_ZERO, Atom, Function, Unsupported, fresh, is_open
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.elementwise import one_place
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term, drop_unused_out
from vitools.calculus.tracing.inner import Opened
from vitools.calculus.tracing.trace import TracedSite

BOUNDS = {"Pareto": ("scale",), "Uniform": ("low", "high")}
"""Parameters on which the support depends."""

Part = Function | Term
"""What a parameter is: a function of the latent, or a term of data."""


def whole_density(
    site: TracedSite, given: Opened, arguments: Mapping[str, Any]
) -> Expression | None:
    """log p of a scalar site as one statistic of one latent; None where two latents meet in it.

    Args:
        given: what the site's distribution is made of.
        arguments: the same in expressions.
    """
    is_prior = site.is_latent and not any(_depends(a) or _is_open(a) for a in arguments.values())
    if is_prior and site.nodes is not None:
        return _prior_on_nodes(site)
    if site.base_event_dim or not isinstance(site.value, Expression | None):
        return None
    if is_prior:
        return _prior(site)
    if any(isinstance(a, Distribution) for a in arguments.values()):
        return None
    if any(
        _depends(a) or _is_open(a) for a in map(arguments.get, BOUNDS.get(site.distribution, ()))
    ):
        return None  # where the density is zero changes with the latent
    value = Expression.constant(site.observed) if site.value is None else site.value
    parts = {"value": value} | {k: a for k, a in arguments.items() if isinstance(a, Expression)}
    shape = tuple(site.batch_shape)
    common: list[int | None] = [fresh() if size > 1 else None for size in shape]
    place: Atom | None = None
    inside: dict[str, Part] = {}
    for name, part in parts.items():
        if part.dim > len(shape) or given.own.get(name, 0):
            return None
        if part.is_constant:
            (known,) = _on_labels(Expression.constant(part.value()).terms, common)
            inside[name] = known
            continue
        try:
            terms = part.folded().terms
        except Unsupported:  # no sum of terms: more than one latent is in it
            return None
        here = one_place(_on_labels(terms, common), common)
        if here is None or (place is not None and not place.same_place(here.atom)):
            return None
        place, inside[name] = here.atom, here.function
    if place is None:
        return None
    atom = Atom(place.site, _density_of(site, given, inside), place.indices)
    return Expression([drop_unused_out(Term(1.0, (atom,), tuple(common)))], shape)


def _depends(argument: Any) -> bool:
    return isinstance(argument, Expression) and not argument.is_constant


def _is_open(argument: Any) -> bool:
    """Whether it is a constant that moves with values."""
    return isinstance(argument, Expression) and any(
        is_open(constant.tensor) for term in argument.terms for constant in term.constants()
    )


def _prior(site: TracedSite) -> Expression:
    """A latent's log density under known parameters, whatever distribution it is."""
    evaluate = log_prob_of(site)
    words = f"log {site.distribution}({{}})"
    assert isinstance(site.value, Expression)
    (term,) = site.value.terms
    (atom,) = term.atoms()
    statistic = Atom(site.name, Function(("prior", site.name), evaluate, words), atom.indices)
    return Expression([Term(1.0, (statistic,), term.out)], site.value.shape)


def log_prob_of(site: TracedSite) -> Callable[[Tensor], Tensor]:
    """log p of a latent with known parameters, elementwise from x ``[*batch, n]``."""
    fn = _in_double(site.fn, {})

    def evaluate(x: Tensor) -> Tensor:  # [*batch, nodes]; a distribution has its batch last
        return fn.log_prob(x.movedim(-1, 0)).movedim(0, -1)

    return evaluate


def _prior_on_nodes(site: TracedSite) -> Expression:
    """The same where the latent is a table of values."""
    assert site.nodes is not None
    density = log_prob_of(site)(site.nodes.values).clamp(min=LOG_ZERO)
    return on_nodes(site, density)


def on_nodes(site: TracedSite, table: Tensor) -> Expression:
    """Σ_k 1[s = s_k] f_k of numbers ``[*shape, K]``."""
    return Discrete.latent(site.name, site.shape, table).expression()


def _in_double(part: Any, made: dict[int, Any]) -> Any:
    """A copy of a distribution, or a part of one, whose numbers are float64.

    Integrals to ten digits need that: torch's HalfCauchy, say, rounds values to the dtype of its scale.
    """
    if isinstance(part, Tensor):
        return part.double() if part.is_floating_point() else part
    if isinstance(part, list | tuple) and type(part) in (list, tuple):
        return type(part)(_in_double(item, made) for item in part)
    if not isinstance(part, Distribution | Transform):
        return part
    if id(part) not in made:
        made[id(part)] = twin = copy.copy(part)
        twin.__dict__ = {name: _in_double(value, made) for name, value in vars(part).items()}
    return made[id(part)]


def _on_labels(terms: Sequence[Term], common: Sequence[int | None]) -> list[Term]:
    """The terms with these labels on their out dims, broadcast to as many."""
    renamed = []
    for term in terms:
        term = term.freshen().pad(len(common))
        names = {
            x: y for x, y in zip(term.out, common, strict=True) if x is not None and y is not None
        }
        renamed.append(term.rename(names))
    return renamed


def _log_prob_by(given: Opened) -> Callable[..., Tensor]:
    def log_prob(value: Tensor, **parameters: Tensor) -> Tensor:
        density: Tensor = given.make(parameters).log_prob(value)
        return density

    return log_prob


def _log_weibull(value: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    """log k/λ + (k-1) log(x/λ) - (x/λ)^k; by way of (x/λ)^k, as Pyro has it, NaN where that overflows."""
    log_ratio = value.log() - scale.log()
    tail = (concentration * log_ratio).exp()
    return concentration.log() - scale.log() + (concentration - 1) * log_ratio - tail


def _density_of(site: TracedSite, given: Opened, inside: Mapping[str, Part]) -> Function:
    """x ↦ log p with parameters (and value) that are functions of x and of data."""
    log_prob = _log_weibull if site.distribution == "Weibull" else _log_prob_by(given)
    data = {
        name: part.data if isinstance(part, Function) else tuple(part.constants())
        for name, part in inside.items()
    }

    def evaluate(x: Tensor, *tensors: Tensor) -> Tensor:
        remaining, found = list(tensors), {}
        for name, part in inside.items():
            own = [remaining.pop(0) for _ in data[name]]
            if isinstance(part, Function):
                found[name] = part.evaluate(x, *own)
            else:
                found[name] = torch.as_tensor(part.coefficient, dtype=x.dtype)
                for tensor in own:
                    found[name] = found[name] * tensor
        value = found.pop("value")
        density = log_prob(value, **found)
        # ∞ - ∞ of parameters at the end of the numbers, where nothing is left of the density; any other
        # NaN is the model's, and is told of
        at_the_end = torch.zeros((), dtype=torch.bool)
        for parameter in found.values():
            at_the_end = at_the_end | parameter.isinf()
        return torch.where(density.isnan() & at_the_end, -torch.inf, density)

    every = tuple(constant for constants in data.values() for constant in constants)
    words = f"log {site.distribution}({site.name} | {{}})"
    return Function(("density", site.name), evaluate, words, every)
