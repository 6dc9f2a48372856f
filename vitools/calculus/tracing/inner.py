"""Distributions that stand in the arguments of others: what each was written with, as expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import Product
from vitools.calculus.tracing.constructors import base_and_mask, written
from vitools.calculus.tracing.symbolic import SymbolicTensor
from vitools.calculus.tracing.trace import TracedSite


class Unread(Exception):
    """A part of a distribution that is none of those known."""


def node_of(value: Any) -> Expression:
    """An argument as an expression."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, SymbolicTensor):
        return node_of(value.node)
    if isinstance(value, Discrete):
        return value.expression()
    if isinstance(value, Tensor | int | float):
        return Expression.constant(value)
    raise Unread


def read_inside(fn: Any) -> tuple[Any, int, dict[str, Any]]:
    """The distribution that was written, how many of its dims are events by declaration, its arguments."""
    base, mask = base_and_mask(fn)
    if mask is not None:
        raise Unread
    arguments = {
        k: x for k, x in written(base)[1].items() if k != "validate_args" and x is not None
    }
    return base, len(fn.event_shape) - len(base.event_shape), arguments


def own_dims(base: Any, key: str) -> int:
    """Dims of a parameter beside those of the batch."""
    constraint = base.arg_constraints.get(key)
    if constraint is None:
        raise Unread
    return event_dims(constraint)


def event_dims(constraint: constraints.Constraint) -> int:
    """Of a parameter; none where they are said to depend on its value, as those of our own families are."""
    return 0 if constraints.is_dependent(constraint) else int(constraint.event_dim)


def at_cases(node: Expression, own: int, cases: Expression) -> Expression:
    """Σ_k 1[z = k] node_k, k along the axis before the node's last ``own`` dims, where it has one.

    Args:
        cases: 1[z = k], k along the last dim.
    """
    size = cases.shape[-1]
    if isinstance(node, Product):
        return node.map_log(lambda log: at_cases(log, own, cases))
    if node.dim > own and node.shape[-1 - own] == size:
        for _ in range(own):
            cases = cases.unsqueeze(-1)
        return (node * cases).sum(-1 - own)
    return node.take(0, -1 - own) if node.dim > own and node.shape[-1 - own] == 1 else node


@dataclass(frozen=True)
class Opened:
    """A site's distribution made of numbers alone.

    Attributes:
        arguments: by name, those of a distribution in an argument as ``base_dist.rate``.
        own: dims of each beside those of the site's batch; 0 where it is not among them.
        make: the distribution, from values of the arguments.
    """

    arguments: dict[str, Any]
    own: dict[str, int]
    make: Callable[[Mapping[str, Any]], Distribution]


def opened(site: TracedSite) -> Opened:
    """The site as it was written, with the parameters of distributions inside it as its own where these are read."""
    given = written(site.fn)[1] if hasattr(site.fn, "_written") else {}
    if any(isinstance(x, Distribution) for x in given.values()):
        try:
            return _opened(site.fn, 0)
        except Unread:
            pass
    known = getattr(site.fn, "arg_constraints", {})
    own = {k: event_dims(known[k]) for k in site.arguments if k in known}
    return Opened(site.arguments, own, lambda values: type(site.fn)(**values, validate_args=False))


def _opened(fn: Any, more: int) -> Opened:
    """
    Args:
        more: dims of its batch that are not the site's.
    """
    base, to_event, written_with = read_inside(fn)
    arguments: dict[str, Any] = {}
    own: dict[str, int] = {}
    inside: dict[str, Opened] = {}
    for name, value in written_with.items():
        if isinstance(value, Distribution):
            of_cases = (
                name == "component_distribution"
            )  # of which each has an element of its last batch dim
            inside[name] = _opened(value, more + to_event + of_cases)
            for key, node in inside[name].arguments.items():
                arguments[f"{name}.{key}"] = node
                own[f"{name}.{key}"] = inside[name].own[key]
            continue
        known = name in base.arg_constraints  # a mask is not, and has no dims of its own
        wide = more + to_event + (own_dims(base, name) if known else 0)
        node = node_of(value)
        while node.dim < wide:
            node = node.unsqueeze(0)
        arguments[name], own[name] = node, wide

    def make(values: Mapping[str, Any]) -> Distribution:
        parts = {k: x.bool() if k == "mask" else x for k, x in values.items() if "." not in k}
        for name, part in inside.items():
            start = f"{name}."
            parts[name] = part.make(
                {k[len(start) :]: x for k, x in values.items() if k.startswith(start)}
            )
        made = type(base)(**parts, validate_args=False)
        return made.to_event(to_event) if to_event else made

    return Opened(arguments, own, make)
