"""Shape-only tensors that stand for latents while the model runs.

A :class:`SymbolicTensor` lives on the meta device: it has a shape and a dtype but no values, so
``phi[z]`` over a large vocabulary costs nothing. Every torch operation on it looks up its rule in
:mod:`vitools.calculus.tracing.operations.table`. An operation without a rule yields a tensor that carries a
:class:`Refusal`; it is raised only when a distribution is given that tensor, so that quantities
which merely pass by (``pyro.deterministic``) never stand in the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.operations.by_value import of_every_value
from vitools.calculus.tracing.operations.spelling import spelled
from vitools.calculus.tracing.operations.table import RULES, Node, function_name
from vitools.errors import NotConjugateError

READS_VALUES = {"item", "bool", "float", "int", "index", "tolist", "numpy", "array", "contains"}
CONSTRUCTORS = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full",
                "new_tensor", "empty_like", "new_empty"}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Why a quantity is not an expression of the calculus."""

    reason: str
    sites: frozenset[str]


class SymbolicTensor(Tensor):
    node: Node | Refusal

    @staticmethod
    def wrap(shape_only: Tensor, node: Node | Refusal) -> SymbolicTensor:
        meta = shape_only.detach().to("meta")
        result = torch.Tensor._make_subclass(SymbolicTensor, meta)
        result.node = node
        return result

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"SymbolicTensor({tuple(self.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        sites = _sites((args, kwargs))
        if getattr(func, "__name__", "") in {"__bool__", "__float__", "__int__", "__index__"} or (
            name in READS_VALUES and getattr(func, "__name__", "") not in {"float", "int", "bool"}
        ):
            raise NotConjugateError(
                f"the model reads the value of latent {_listed(sites)} while it runs "
                f"({name}, or a Python condition on it), so its structure is not fixed; "
                "svi() and nuts() fit it, because they run the model on values"
            )
        if name == "setitem" or (
            getattr(func, "__name__", "").endswith("_")
            and not getattr(func, "__name__", "").startswith("_")
        ):
            raise NotConjugateError(
                f"the in-place operation {name!r} writes latent {_listed(sites)} into a tensor; "
                "build the tensor with torch.stack, torch.cat or torch.where instead"
            )
        if name == "device":
            return torch.device("cpu")
        if name in CONSTRUCTORS:
            return _construct(func, args, kwargs)
        to_meta = _to_meta_index if name == "getitem" else _to_meta
        with torch._C.DisableTorchFunctionSubclass():
            shape_only = func(*tree_map(to_meta, args), **tree_map(to_meta, kwargs))
        if name == "iter":
            shape_only = tuple(shape_only)
        tensors = isinstance(shape_only, list | tuple) and any(
            isinstance(part, Tensor) for part in shape_only
        )
        if not isinstance(shape_only, Tensor) and not tensors:
            return shape_only
        node = _apply(func, args, kwargs, sites)
        if tensors:
            nodes = node if isinstance(node, list) else [node] * len(shape_only)
            wrapped = [_checked(s, n, name) for s, n in zip(shape_only, nodes, strict=True)]
            return iter(wrapped) if name == "iter" else tuple(wrapped)
        return _checked(shape_only, node, name)


def _checked(shape_only: Tensor, node: Any, name: str) -> SymbolicTensor:
    """A rule whose shape differs from torch's is a bug here; refuse rather than go on."""
    if not isinstance(node, Refusal) and tuple(node.shape) != tuple(shape_only.shape):
        reason = f"operation {name!r} (no rule for this form of it)"
        node = Refusal(reason, frozenset(node.sites()))
    return SymbolicTensor.wrap(shape_only, node)


def _apply(function: Callable[..., Any], args: Any, kwargs: Any, sites: frozenset[str]) -> Any:
    """The operation's result by its rule; where it has none, value by value if that can be done."""
    refusals = _collect((args, kwargs), Refusal)
    if refusals:
        return Refusal(refusals[0].reason, sites)
    name = function_name(function)
    args, kwargs = tree_map(_to_node, (args, kwargs))
    result = _by_rule(name, args, kwargs, sites)
    if isinstance(result, Refusal):
        table = of_every_value(function, args, kwargs)
        return result if table is None else table
    return result


def _by_rule(name: str, args: Any, kwargs: Any, sites: frozenset[str]) -> Any:
    if name not in RULES:
        return Refusal(f"operation {name!r} has no closed-form rule", sites)
    try:
        result = RULES[name](*args, **kwargs)
        if isinstance(result, Discrete):
            result.words = spelled(name, args, kwargs)
        return result
    except Unsupported as error:
        return Refusal(str(error), sites)
    except IndexError as error:
        # torch took it, of no elements for instance: there is no rule for it
        return Refusal(f"operation {name!r} with these arguments ({error})", sites)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        return Refusal(f"operation {name!r} with these arguments ({error})", sites)


def _to_meta(value: Any) -> Any:
    if isinstance(value, SymbolicTensor):
        return value.as_subclass(torch.Tensor)
    return value.to("meta") if isinstance(value, Tensor) else value


def _to_meta_index(value: Any) -> Any:
    """Torch reads the value of an index without dims; any position does for the shape."""
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_floating_point():
        return 0 if value.dtype != torch.bool else True
    return _to_meta(value)


def _to_node(value: Any) -> Any:
    return value.node if isinstance(value, SymbolicTensor) else value


def _construct(func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
    """zeros_like and its kin do not depend on values: build a real tensor."""

    def real(value: Any) -> Any:
        if isinstance(value, SymbolicTensor):
            dtype = value.as_subclass(torch.Tensor).dtype
            return torch.zeros((), dtype=dtype).expand(tuple(value.shape))
        return value

    with torch._C.DisableTorchFunctionSubclass():
        return func(*tree_map(real, args), **tree_map(real, kwargs))


def _collect(tree: Any, kind: type) -> list[Any]:
    found: list[Any] = []

    def visit(value: Any) -> Any:
        if isinstance(value, SymbolicTensor) and isinstance(value.node, kind):
            found.append(value.node)
        return value

    tree_map(visit, tree)
    return found


def _sites(tree: Any) -> frozenset[str]:
    sites: set[str] = set()
    for node in _collect(tree, object):
        sites |= node.sites if isinstance(node, Refusal) else node.sites()
    return frozenset(sites)


def _listed(sites: frozenset[str]) -> str:
    return ", ".join(repr(site) for site in sorted(sites)) or "sites"


def node_of(value: Any) -> Expression | Discrete | Refusal | Any:
    """The node of a symbolic tensor; anything else unchanged."""
    return _to_node(value)
