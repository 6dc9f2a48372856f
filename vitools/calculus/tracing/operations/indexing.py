"""Rules of indexing: by integers, slices, data and discrete latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.algebra.discrete import Discrete, take_discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import Product
from vitools.calculus.tracing.operations.rules import Node, table_only


def getitem(input: Any, key: Any) -> Node:
    """NumPy indexing: integers, slices, None, Ellipsis, integer or boolean data, discrete latents."""
    is_integer = isinstance(input, Tensor) and not input.is_floating_point()
    if not isinstance(input, Expression | Discrete):
        input = Expression.constant(input)
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [torch.as_tensor(k) if isinstance(k, list) else k for k in keys]
    keys = [table_only(k, "indexing") if isinstance(k, Expression) else k for k in keys]
    keys = _spell_out(keys, len(input.shape))
    if isinstance(input, Discrete):
        if any(isinstance(k, Discrete) for k in keys):
            raise Unsupported("indexing one discrete latent by another")
        return input.restructured(lambda e: _getitem(e, keys))
    if isinstance(input, Product):
        return input.map_log(lambda log: _getitem(log, keys))
    read = _getitem(input, keys)
    return table_only(read, "indexing") if is_integer else read


def _spell_out(keys: list[Any], rank: int) -> list[Any]:
    """Replace the ellipsis by full slices and boolean masks by positions."""
    spelled: list[Any] = []
    for k in keys:
        if isinstance(k, Tensor) and k.dtype == torch.bool:
            spelled.extend(k.nonzero(as_tuple=True))
        else:
            spelled.append(k)
    used = sum(k is not None and k is not Ellipsis for k in spelled)
    full = [slice(None)] * (rank - used)
    if any(k is Ellipsis for k in spelled):
        at = next(i for i, k in enumerate(spelled) if k is Ellipsis)
        return [*spelled[:at], *full, *spelled[at + 1 :]]
    return spelled + full


def _getitem(value: Expression, keys: list[Any]) -> Expression:
    arrays = [k for k in keys if isinstance(k, Tensor | Discrete)]
    advanced = any(isinstance(k, Discrete) or k.dim() > 0 for k in arrays)
    result, dim = value, 0
    chosen: list[tuple[int, Discrete]] = []
    for k in keys:
        if k is None:
            result = result.unsqueeze(dim)
            dim += 1
        elif isinstance(k, slice):
            if k != slice(None):
                result = result.take(torch.arange(result.shape[dim])[k], dim)
            dim += 1
        elif not advanced:
            result = result.take(k, dim)
        else:
            index = k if isinstance(k, Discrete) else Discrete.data(torch.as_tensor(k))
            chosen.append((dim, index))
            dim += 1
    if not chosen:
        return result
    dims = [d for d, _ in chosen]
    indices = [index for _, index in chosen]
    if dims != list(range(dims[0], dims[0] + len(dims))):
        # Indices that are not adjacent: NumPy puts their dims first.
        rest = [d for d in range(result.dim) if d not in dims]
        result = result.permute([*dims, *rest])
        dims = list(range(len(dims)))
    return take_discrete(result, dims, indices)


def index_select(input: Any, dim: int, index: Any) -> Node:
    key = [slice(None)] * (dim % len(input.shape)) + [index]
    return getitem(input, tuple(key))


RULES: dict[str, Callable[..., Any]] = {
    "getitem": getitem,
    "index_select": index_select,
}
