"""Observations that are mixtures: which component each came from is a latent of a wider model.

    p(y_n) = Σ_k π_k p_k(y_n),            z_n ~ Categorical(π),  y_n | z_n ~ p_{z_n}

Summed over z the wider model is the model as written, so that z, which is nobody's site, is summed out again wherever
the posterior is weighed: an exact augmentation, and a bound on the bound of the factors of the others alone. Of counts
with an excess of zeros only the zeros have such a latent,

    p(y_n) = g 1[y_n = 0] + (1 - g) p(y_n),    z_n ~ Bernoulli(g) where y_n = 0.

A mixture of which latents are read on nodes, or of one scalar latent alone, is a number at each case and keeps its density,
whatever distributions it is written with (:func:`~vitools.calculus.tracing.inner.opened`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus.algebra.atoms import Predictor, Unsupported
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.constructors import both_masks, written
from vitools.calculus.tracing.inner import (
    Unread,
    at_cases,
    node_of,
    opened,
    own_dims,
    read_inside,
)
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.supports import bounds


def with_components(trace: ModelTrace) -> ModelTrace:
    """The same model, with the components of its observed mixtures as latents."""
    sites: dict[str, TracedSite] = {}
    auxiliary = set(trace.auxiliary)
    for name, site in trace.sites.items():
        for part in _parts(site):
            sites[part.name] = part
            if part.is_latent and part.name != name:
                auxiliary.add(part.name)
    return replace(trace, sites=sites, auxiliary=frozenset(auxiliary))


def _parts(site: TracedSite) -> list[TracedSite]:
    """The site in parts that are no mixtures; mixtures of mixtures come apart one after another."""
    read = COMPONENTS.get(site.distribution)
    if read is None or site.is_latent or site.switch is not None or not _is_plain(site.scale):
        return [site]
    try:
        parts = read(site)
    except Unread:
        return [site]
    return [own for part in parts for own in ([part] if part.is_latent else _parts(part))]


def _is_plain(scale: float | Tensor) -> bool:
    return isinstance(scale, float) and scale == 1.0


def _mixture(site: TracedSite) -> list[TracedSite]:
    given = written(site.fn)[1]
    if _is_tabled(site):
        raise Unread
    mixing, _, weights = read_inside(given["mixture_distribution"])
    component, to_event, arguments = read_inside(given["component_distribution"])
    if written(mixing)[0] != "Categorical" or component.support.is_discrete is None:
        raise Unread
    of = {key: node_of(x) for key, x in weights.items()}
    nodes = {key: node_of(x) for key, x in arguments.items()}
    (size,) = {x.shape[-1] for x in of.values()}
    latent = _latent(site, "component", "Categorical", of, torch.arange(size))
    assert isinstance(latent.value, Discrete)
    cases = latent.value.one_hot(size)
    chosen = {k: at_cases(x, own_dims(component, k) + to_event, cases) for k, x in nodes.items()}
    return [latent, _observed(site, component, to_event, chosen)]


def _latent(
    site: TracedSite, what: str, distribution: str, arguments: dict[str, Expression], values: Tensor
) -> TracedSite:
    """A discrete latent, one for each element of the site."""
    name, shape, size = f"{what} of {site.name}", tuple(site.batch_shape), len(values)
    flat = torch.full((size,), 1 / size, dtype=torch.float64)
    fn = dist.Bernoulli(flat[0]) if distribution == "Bernoulli" else dist.Categorical(flat)
    return replace(
        site,
        name=name,
        distribution=distribution,
        arguments=arguments,
        shape=shape,
        base_event_dim=0,
        observed=None,
        value=Discrete.latent(name, shape, values),
        support_size=size,
        fn=fn.expand(torch.Size(shape)),
    )


def _observed(
    site: TracedSite, base: Any, to_event: int, arguments: Mapping[str, Any], **changes: Any
) -> TracedSite:
    """The site's data under another distribution, of which more dims may be events by declaration."""
    event = len(base.event_shape)
    batch = site.shape[: len(site.shape) - event]
    more = (1,) * (len(batch) - len(site.batch_shape))
    if site.mask is not None:
        changes.setdefault("mask", site.mask.reshape(*site.mask.shape, *more))
    return replace(
        site,
        distribution=written(base)[0],
        arguments=dict(arguments),
        batch_shape=tuple(batch),
        base_event_dim=event,
        to_event=site.to_event + to_event,
        fn=base,
        **changes,
    )


def _zero_inflated(site: TracedSite) -> list[TracedSite]:
    given = dict(site.arguments)
    base = site.fn.base_dist
    if site.distribution == "ZeroInflatedDistribution":
        base, to_event, arguments = read_inside(written(site.fn)[1]["base_dist"])
        if to_event or not _may_be_zero(base):
            raise Unread
        nodes = {key: node_of(x) for key, x in arguments.items()}
    else:
        nodes = {
            key: node_of(x)
            for key, x in given.items()
            if x is not None and not key.startswith("gate") and key != "validate_args"
        }
    gates = {"gate": "probs", "gate_logits": "logits"}
    gate = {gates[k]: node_of(x) for k, x in given.items() if k in gates and x is not None}
    parts = (*gate.values(), *nodes.values())
    if _stands_alone(parts) or _is_tabled(site):
        raise Unread
    assert site.observed is not None
    zero = (site.observed == 0).expand(site.batch_shape)
    seen = site.mask.expand(site.batch_shape) if site.mask is not None else torch.ones_like(zero)
    counted = replace(
        site,
        name=f"gate of {site.name}",
        distribution="Bernoulli",
        arguments=gate,
        observed=torch.zeros(site.batch_shape, dtype=torch.float64),
        mask=seen & ~zero,
        fn=dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)).expand(site.batch_shape),
    )
    others = _observed(replace(site, mask=seen & ~zero), base, 0, nodes)
    if not bool((zero & seen).any()):
        return [counted, others]
    support = torch.tensor([0.0, 1.0], dtype=torch.float64)
    masked = replace(site, mask=seen & zero)
    latent = _latent(masked, "excess zero", "Bernoulli", gate, support)
    assert isinstance(latent.value, Discrete)
    of_base = latent.value.apply(lambda table: 1 - table).expression()
    zeros = replace(
        others,
        name=f"zeros of {site.name}",
        observed=site.observed.new_zeros(()).expand(site.observed.shape),
        mask=None,
        switch=Expression.constant((seen & zero).double()) * of_base,
    )
    return [latent, counted, zeros, others]


def _may_be_zero(base: Any) -> bool:
    """Whether zero is among the values of counts, whose least value may be a latent's."""
    least = bounds(base.support)[0]
    is_known = isinstance(least, int | float) or (isinstance(least, Tensor) and not least.is_meta)
    return bool(base.support.is_discrete) and is_known and bool(torch.as_tensor(least <= 0).all())


def _is_tabled(site: TracedSite) -> bool:
    """Whether the density is a number at each case: all that its parameters hold of latents are their cases."""
    try:
        parameters = [node_of(x) for x in opened(site).arguments.values()]
        terms = [term for x in parameters for term in x.terms]
    except (Unread, Unsupported):
        return False
    return all(atom.function == "indicator" for term in terms for atom in term.atoms())


def _stands_alone(arguments: tuple[Expression, ...]) -> bool:
    """Whether one element of one latent is all that the arguments have: the density is one integral's."""
    if len(set().union(*(x.sites() for x in arguments))) > 1:
        return False
    try:
        terms = [term for x in arguments for term in x.terms]
    except Unsupported:
        return False
    read = [(term, atom) for term in terms for atom in term.atoms()]
    return not any(
        isinstance(atom.site, Predictor) or not set(term.out).issuperset(atom.labels)
        for term, atom in read
    )


def _masked_mixture(site: TracedSite) -> list[TracedSite]:
    """Two observations, each masked where the other is seen."""
    given = written(site.fn)[1]
    chosen = node_of(given["mask"])
    parts = []
    for key, here in (("component0", 1 - chosen), ("component1", chosen)):
        base, to_event, arguments = read_inside(given[key])
        nodes = {k: x if isinstance(x, Distribution) else node_of(x) for k, x in arguments.items()}
        seen = _observed(site, base, to_event, nodes)
        for _ in range(to_event):
            here = here.unsqueeze(-1)
        if here.is_constant:
            mask = both_masks(seen.mask, here.value().bool().expand(seen.batch_shape))
            seen = replace(seen, mask=mask)
        else:
            seen = replace(seen, switch=here)
        name = site.name if key == "component1" else f"{site.name}, where not masked"
        parts.append(replace(seen, name=name))
    return parts


COMPONENTS: dict[str, Callable[[TracedSite], list[TracedSite]]] = {
    "MaskedMixture": _masked_mixture,
    "MixtureSameFamily": _mixture,
    "ZeroInflatedDistribution": _zero_inflated,
    "ZeroInflatedNegativeBinomial": _zero_inflated,
    "ZeroInflatedPoisson": _zero_inflated,
}
