"""Operations of :mod:`vitools.graphs.loops` whose loops follow no common pattern.

Each takes the lowering, the node and a tensor like its result, and returns a value in memory.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from vitools.graphs.loops.operations import TYPES, literal
from vitools.graphs.loops.values import Formula, NotInLoops, Value

Lowered = Callable[[Any, Any, Tensor], Value]


def _cat(lowering: Any, node: Any, made: Tensor) -> Value:
    """One after another; a piece that is nothing else yet is computed where it will lie."""
    pieces: Any = node.args[0]
    dim = node.args[1] if len(node.args) > 1 else 0
    into = lowering.emitter.fresh(made.dtype, made.shape)
    begin, there = 0, list[tuple[Any, int]]()
    for piece in pieces:
        shape = tuple(piece.meta["val"].shape)
        if shape == (0,):
            continue
        part = into.meta().narrow(dim, begin, shape[dim])
        begin += shape[dim]
        found = lowering.values[piece]
        if part.is_contiguous() and isinstance(found, Value) and _can_move(found, made, there):
            there.append((found.buffer, int(part.storage_offset())))
            continue
        lowering.emitter.assign(into.seen_as(part), lowering.expression(piece, shape, made.dtype))
    if there:
        lowering.emitter.joined(into, there)
    if begin == 0:  # of nothing: memory that nothing else would claim
        lowering.emitter.assign(into, Formula(made.dtype, into.shape, "0", ()))
    return into


def _can_move(value: Value, made: Tensor, there: Sequence[tuple[Any, int]]) -> bool:
    buffer = value.buffer
    taken = buffer.home is not None or any(buffer is other for other, _ in there)
    return buffer.kind == "work" and not taken and value.is_whole() and value.dtype is made.dtype


def _slice_scatter(lowering: Any, node: Any, made: Tensor) -> Value:
    base, source, *where = node.args
    into = _copy(lowering, base, made)
    part = torch.ops.aten.slice.Tensor(into.meta(), *where, **node.kwargs)
    piece = lowering.expression(source, tuple(part.shape), made.dtype)
    lowering.emitter.assign(into.seen_as(part), piece)
    return into


def _select_scatter(lowering: Any, node: Any, made: Tensor) -> Value:
    base, source, *where = node.args
    into = _copy(lowering, base, made)
    part = torch.ops.aten.select.int(into.meta(), *where)
    piece = lowering.expression(source, tuple(part.shape), made.dtype)
    lowering.emitter.assign(into.seen_as(part), piece)
    return into


def _diagonal_scatter(lowering: Any, node: Any, made: Tensor) -> Value:
    base, source, *where = node.args
    into = _copy(lowering, base, made)
    part = torch.ops.aten.diagonal.default(into.meta(), *where, **node.kwargs)
    piece = lowering.expression(source, tuple(part.shape), made.dtype)
    lowering.emitter.assign(into.seen_as(part), piece)
    return into


def _constant_pad_nd(lowering: Any, node: Any, made: Tensor) -> Value:
    base, pads, *rest = node.args
    filling = literal(rest[0] if rest else 0, made.dtype)
    shape = tuple(made.shape)
    into = lowering.emitter.fresh(made.dtype, shape)
    lowering.emitter.assign(into, Formula(made.dtype, shape, filling, ()))
    target, source = into.meta(), lowering.value(base)
    view = source.meta()
    widths: Any = pads
    for i in range(len(widths) // 2):
        dim, (before, after) = len(shape) - 1 - i, widths[2 * i : 2 * i + 2]
        size = view.shape[dim]
        view = view.narrow(dim, max(-before, 0), size - max(-before, 0) - max(-after, 0))
        target = target.narrow(dim, max(before, 0), view.shape[dim])
    lowering.emitter.assign(into.seen_as(target), source.seen_as(view).expression())
    return into


def _flip(lowering: Any, node: Any, made: Tensor) -> Value:
    source, dims = lowering.value(node.args[0]), {d % made.ndim for d in node.args[1]}
    indices = _indices(made.ndim)
    turned = [f"({n - 1} - {i})" if d in dims else i for d, (i, n) in _enumerated(indices, made)]
    into = lowering.emitter.fresh(made.dtype, made.shape)
    body = f"{into.at(indices)} = {source.at(turned)};"
    _loops(lowering, made.shape, body, [source], into)
    return into


def _cumsum(lowering: Any, node: Any, made: Tensor) -> Value:
    source, dim = lowering.value(node.args[0]), node.args[1] % max(made.ndim, 1)
    if made.ndim == 0:
        raise NotInLoops("a running sum of one number")
    into, indices = lowering.emitter.fresh(made.dtype, made.shape), _indices(made.ndim)
    kind, index = TYPES[made.dtype], indices[dim]
    body = f"a += {source.at(indices)}; {into.at(indices)} = a;"
    body = (
        f"{kind} a = 0; for (long {index} = 0; {index} < {made.shape[dim]}; ++{index}) {{ {body} }}"
    )
    _loops(lowering, made.shape, body, [source], into, without=dim)
    return into


def _gather(lowering: Any, node: Any, made: Tensor) -> Value:
    source, dim, index = node.args[:3]
    value, where = lowering.value(source), lowering.value(index)
    indices = _indices(made.ndim)
    into = lowering.emitter.fresh(made.dtype, made.shape)
    found = list(indices)
    if found:
        found[dim % made.ndim] = _checked(where.at(indices), value.shape[dim], from_end=False)
    body = f"{into.at(indices)} = {value.at(found)};"
    _loops(lowering, made.shape, body, [value, where], into)
    return into


def _scatter_add(lowering: Any, node: Any, made: Tensor) -> Value:
    base, dim, index, source = node.args
    into = _copy(lowering, base, made)
    where, value = lowering.value(index), lowering.value(source)
    indices = _indices(made.ndim)
    found = list(indices)
    if found:
        found[dim % made.ndim] = _checked(where.at(indices), made.shape[dim], from_end=False)
    body = f"{into.at(found)} += {value.at(indices)};"
    _loops(lowering, where.shape, body, [where, value, into], into)
    return into


def _index(lowering: Any, node: Any, made: Tensor) -> Value:
    dim, where = _one_index(lowering, node.args[1])
    return _chosen(lowering, lowering.value(node.args[0]), dim, where, made)


def _index_select(lowering: Any, node: Any, made: Tensor) -> Value:
    source, dim, where = node.args
    if made.ndim == 0:
        raise NotInLoops("an element of a number")
    index = lowering.value(where)
    index = index.seen_as(index.meta().view(-1)) if index.shape == () else index
    return _chosen(lowering, lowering.value(source), dim % made.ndim, index, made, from_end=False)


def _chosen(
    lowering: Any, source: Value, dim: int, where: Value, made: Tensor, *, from_end: bool = True
) -> Value:
    """``source`` at the indices ``where`` of its dimension ``dim``."""
    rank, size = len(where.shape), source.shape[dim]
    text = _checked("{0}", size, from_end=from_end)
    checked = Formula(torch.int64, where.shape, text, (where,))
    index = lowering.emitter.stored(checked, everywhere=True)
    shape = tuple(made.shape)
    behind = len(shape) - dim - rank
    index = index.seen_as(index.meta().reshape((1,) * dim + where.shape + (1,) * behind))
    strides = (*source.strides[:dim], *(0,) * rank, *source.strides[dim + 1 :])
    lookup = (index.broadcast(shape), source.strides[dim])
    found = Value(source.buffer, source.dtype, shape, strides, source.offset, lookup)
    return lowering.emitter.stored(found.expression(), everywhere=True)


def _index_put(lowering: Any, node: Any, made: Tensor) -> Value:
    base, given, values, *rest = node.args
    into = _copy(lowering, base, made)
    first, where = _neighbours(lowering, given)
    value = lowering.value(values)
    if where[0].shape == () and len(value.shape) == made.ndim:  # as index_add's gradient has it
        where = [index.seen_as(index.meta().view(-1)) for index in where]
    rank = len(where[0].shape)
    shape = (*made.shape[:first], *where[0].shape, *made.shape[first + len(where) :])
    value = value.broadcast(shape)
    indices = _indices(len(shape))
    found = [
        _checked(index.at(indices[first : first + rank]), made.shape[first + k])
        for k, index in enumerate(where)
    ]
    sign = "+=" if rest and rest[0] else "="
    place = into.at([*indices[:first], *found, *indices[first + rank :]])
    _loops(lowering, shape, f"{place} {sign} {value.at(indices)};", [*where, value, into], into)
    return into


# ---- what they share ------------------------------------------------------------------------


def _copy(lowering: Any, base: Any, made: Tensor) -> Value:
    into = lowering.emitter.fresh(made.dtype, made.shape)
    lowering.emitter.assign(into, lowering.expression(base, tuple(made.shape), made.dtype))
    return into


def _one_index(lowering: Any, given: Any) -> tuple[int, Value]:
    dim, where = _neighbours(lowering, given)
    if len(where) != 1:
        raise NotInLoops("indexing by several tensors")
    return dim, where[0]


def _neighbours(lowering: Any, given: Any) -> tuple[int, list[Value]]:
    """Indices of dimensions side by side, of one shape, and the first of these dimensions."""
    dims = [d for d, entry in enumerate(given) if entry is not None]
    if not dims or dims[-1] - dims[0] != len(dims) - 1:
        raise NotInLoops("indexing of dimensions that lie apart")
    found = [lowering.value(given[d]) for d in dims]
    if any(index.dtype not in (torch.int64, torch.int32) for index in found):
        raise NotInLoops("indexing by a mask")
    shape = torch.broadcast_shapes(*(index.shape for index in found))
    return dims[0], [index.broadcast(shape) for index in found]


def _checked(index: str, size: int, *, from_end: bool = True) -> str:
    """None may leave the buffer; a negative index counts from the end where torch says so."""
    return f"inside({index}, {size}, {size if from_end else 0})"


def _indices(count: int) -> list[str]:
    return [f"i{d}" for d in range(count)]


def _enumerated(indices: list[str], made: Tensor) -> Any:
    return enumerate(zip(indices, made.shape, strict=True))


def _loops(
    lowering: Any,
    shape: Sequence[int],
    body: str,
    reads: Sequence[Value],
    into: Value,
    without: int | None = None,
) -> None:
    for d in reversed(range(len(shape))):
        if d != without:
            body = f"for (long i{d} = 0; i{d} < {shape[d]}; ++i{d}) {{ {body} }}"
    buffers = [value.buffer for value in reads]
    lowering.emitter.say(f"{{ {body} }}", buffers, into.buffer, prod(shape))


SPECIAL: dict[str, Lowered] = {
    "cat": _cat,
    "constant_pad_nd": _constant_pad_nd,
    "cumsum": _cumsum,
    "diagonal_scatter": _diagonal_scatter,
    "flip": _flip,
    "gather": _gather,
    "index": _index,
    "index_select": _index_select,
    "index_put": _index_put,
    "scatter_add": _scatter_add,
    "select_scatter": _select_scatter,
    "slice_scatter": _slice_scatter,
}
