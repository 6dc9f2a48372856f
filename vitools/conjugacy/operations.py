"""Torch operations on latents, each with its rule in the calculus.

One table: the name of a torch function → a function of the same arguments, in which latents stand
as :class:`Expression` or :class:`Discrete`. An operation that is not in the table has no rule; the
model can then not be fitted in closed form, and the refusal names the operation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.conjugacy.discrete import Discrete, take_discrete
from vitools.conjugacy.expression import Expression
from vitools.conjugacy.term import Unsupported

Node = Expression | Discrete
RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            RULES[name] = function
        return function

    return register


def expression(value: object) -> Expression:
    return value.expression() if isinstance(value, Discrete) else Expression.constant(value)


def _as_discrete(value: object) -> Discrete | None:
    """A discrete function, or data that can be combined with one; None for an expression."""
    if isinstance(value, Discrete):
        return value
    if isinstance(value, bool | int | float):
        return Discrete.data(torch.as_tensor(value))
    return Discrete.data(value) if isinstance(value, Tensor) else None


def _binary(
    left: object,
    right: object,
    on_tables: Callable[[Tensor, Tensor], Tensor],
    on_expressions: Callable[[Expression, Expression], Expression],
) -> Node:
    if isinstance(left, Discrete) or isinstance(right, Discrete):
        a, b = _as_discrete(left), _as_discrete(right)
        if a is not None and b is not None:
            return a.combine(b, on_tables)
    return on_expressions(expression(left), expression(right))


# ---- arithmetic ------------------------------------------------------------------------------


@rule("add", "radd")
def add(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        other = multiply(other, alpha)
    return _binary(input, other, torch.add, operator.add)


@rule("sub", "subtract")
def subtract(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        other = multiply(other, alpha)
    return _binary(input, other, torch.sub, operator.sub)


@rule("rsub")
def reversed_subtract(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        raise Unsupported("rsub with alpha")
    return subtract(other, input)


@rule("mul", "rmul", "multiply")
def multiply(input: object, other: object) -> Node:
    return _binary(input, other, torch.mul, operator.mul)


@rule("div", "truediv", "true_divide", "divide")
def divide(input: object, other: object, *, rounding_mode: str | None = None) -> Node:
    def on_tables(a: Tensor, b: Tensor) -> Tensor:
        return torch.div(a, b, rounding_mode=rounding_mode)

    if rounding_mode is not None and not (
        isinstance(input, Discrete) and _as_discrete(other) is not None
    ):
        raise Unsupported("rounding division of a continuous latent")
    return _binary(input, other, on_tables, operator.truediv)


@rule("rdiv", "rtruediv")
def reversed_divide(input: object, other: object) -> Node:
    return divide(other, input)


@rule("neg", "negative")
def negate(input: Node) -> Node:
    return input.apply(torch.neg) if isinstance(input, Discrete) else -input


@rule("pos", "positive", "clone", "detach", "contiguous", "cpu", "requires_grad_")
def identity(input: Node, *_: object, **__: object) -> Node:
    return input


@rule("to", "type", "type_as", "double", "float")
def cast(input: Node, *arguments: object, dtype: object = None, **_: object) -> Node:
    target = dtype if dtype is not None else next(iter(arguments), None)
    if isinstance(target, torch.dtype) and not target.is_floating_point:
        return integer(input)
    return input


@rule("long", "int", "bool")
def integer(input: Node) -> Node:
    if isinstance(input, Discrete):
        return input
    raise Unsupported("rounding a continuous latent to an integer")


@rule("pow")
def power(input: object, exponent: object) -> Node:
    if isinstance(input, Discrete) and isinstance(exponent, int | float):
        number = exponent
        return input.apply(lambda table: table**number)
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = float(exponent)
    if not isinstance(exponent, int | float):
        raise Unsupported("a power with a varying exponent")
    return expression(input).power(float(exponent))


def _powers() -> None:
    for name, exponent in {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}.items():
        RULES[name] = lambda input, exponent=exponent: expression(input).power(exponent)


_powers()


@rule("log")
def log(input: Node) -> Node:
    return input.apply(torch.log) if isinstance(input, Discrete) else input.log()


@rule("log1p")
def log1p(input: Node) -> Node:
    return log(add(input, 1.0))


@rule("logical_not", "bitwise_not", "invert")
def logical_not(input: Node) -> Node:
    return _table_only(input, "logical_not").apply(torch.logical_not)


def _table_only(value: Node, name: str) -> Discrete:
    if isinstance(value, Discrete):
        return value
    raise Unsupported(f"{name} of a continuous latent")


def _elementwise_on_tables() -> None:
    """Functions that act on discrete latents alone: comparisons, logic, rounding."""
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor",
                 "bitwise_and", "bitwise_or", "bitwise_xor", "minimum", "maximum", "remainder",
                 "fmod", "floor_divide"):  # fmt: skip
        function = getattr(torch, name)

        def act(
            input: Node, other: object, name: str = name, function: Callable[..., Tensor] = function
        ) -> Node:
            a, b = _as_discrete(input), _as_discrete(other)
            if a is None or b is None:
                raise Unsupported(f"{name} of a continuous latent")
            return a.combine(b, function)

        RULES[name] = act
    RULES.update(
        {"and": RULES["logical_and"], "or": RULES["logical_or"], "mod": RULES["remainder"]}
    )
    for name in ("abs", "exp", "sigmoid", "floor", "ceil", "round", "sign", "lgamma", "tanh"):
        function = getattr(torch, name)

        def map_table(
            input: Node, name: str = name, function: Callable[..., Tensor] = function
        ) -> Node:
            return _table_only(input, name).apply(lambda table: function(table.double()))

        RULES[name] = map_table


_elementwise_on_tables()


# ---- sums and products of matrices -----------------------------------------------------------


@rule("sum")
def sum_(
    input: Node, dim: object = None, keepdim: bool = False, *, axis: object = None, **_: object
) -> Node:
    result = expression(input)
    dims = _dims(dim if dim is not None else axis, result.dim)
    for d in sorted(dims, reverse=True):
        result = result.sum(d)
        if keepdim:
            result = result.unsqueeze(d)
    return result


@rule("mean")
def mean(input: Node, dim: object = None, keepdim: bool = False, **_: object) -> Node:
    total = expression(input)
    count = 1
    for d in _dims(dim, total.dim):
        count *= total.shape[d]
    result = sum_(total, dim, keepdim)
    assert isinstance(result, Expression)
    return result * (1.0 / count)


def _dims(dim: object, rank: int) -> list[int]:
    if dim is None or dim == () or dim == []:
        return list(range(rank))
    if isinstance(dim, int):
        return [dim % rank]
    assert isinstance(dim, Sequence)
    return [d % rank for d in dim]


@rule("cumsum")
def cumsum(input: Node, dim: int, **_: object) -> Node:
    value = expression(input)
    size = value.shape[dim]
    lower = torch.ones(size, size, dtype=torch.float64).tril()
    moved = _move(value, dim, -1)
    return _move(matmul_expressions(moved, Expression.constant(lower.T)), -1, dim)


@rule("matmul", "mv", "mm", "bmm", "dot", "inner_product")
def matmul(input: object, other: object) -> Node:
    return matmul_expressions(expression(input), expression(other))


RULES["vdot"] = RULES["dot"]


@rule("rmatmul")
def reversed_matmul(input: object, other: object) -> Node:
    return matmul(other, input)


def matmul_expressions(a: Expression, b: Expression) -> Expression:
    if b.dim == 1:
        return (a * b).sum(-1)
    if a.dim == 1:
        return (a.unsqueeze(-1) * b).sum(-2)
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


@rule("outer", "ger")
def outer(input: object, vec2: object) -> Node:
    return expression(input).unsqueeze(-1) * expression(vec2).unsqueeze(-2)


@rule("addmm", "addmv")
def add_matmul(
    input: object, mat1: object, mat2: object, *, beta: float = 1, alpha: float = 1
) -> Node:
    return expression(input) * beta + expression(matmul(mat1, mat2)) * alpha


@rule("linear")
def linear(input: object, weight: object, bias: object = None) -> Node:
    right = expression(weight)
    order = [*range(right.dim - 2), right.dim - 1, right.dim - 2] if right.dim > 1 else [0]
    result = matmul_expressions(expression(input), right.permute(order))
    return result if bias is None else result + expression(bias)


@rule("einsum")
def einsum(equation: str, *operands: Any) -> Node:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    if not arrow or "." in equation or any(len(set(n)) < len(n) for n in names):
        raise Unsupported(
            "einsum without '->', with '...' or with a repeated letter in one operand"
        )
    every = sorted(set("".join(names)), key=lambda c: (c not in output, output.find(c), c))
    result = Expression.constant(1.0)
    for name, operand in zip(names, operands, strict=True):
        part = expression(operand)
        part = part.permute([name.index(c) for c in every if c in name])
        for i, c in enumerate(every):
            if c not in name:
                part = part.unsqueeze(i)
        result = result * part
    return result.sum_right(len(every) - len(output))


# ---- shape -----------------------------------------------------------------------------------


def _restructure(value: Node, operation: Callable[[Expression], Expression]) -> Node:
    return value.restructured(operation) if isinstance(value, Discrete) else operation(value)


def _move(value: Expression, source: int, target: int) -> Expression:
    order = list(range(value.dim))
    order.insert(target % value.dim, order.pop(source % value.dim))
    return value.permute(order)


def _flat(sizes: tuple[Any, ...]) -> list[Any]:
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        return list(sizes[0])
    return list(sizes)


@rule("unsqueeze")
def unsqueeze(input: Node, dim: int) -> Node:
    return _restructure(input, lambda e: e.unsqueeze(dim))


@rule("squeeze")
def squeeze(input: Node, dim: object = None) -> Node:
    result = input
    for d in sorted(_dims(dim, len(input.shape)), reverse=True):
        result = _restructure(result, lambda e, d=d: e.squeeze(d))  # type: ignore[misc]
    return result


@rule("transpose", "swapaxes", "swapdims")
def transpose(input: Node, dim0: int, dim1: int) -> Node:
    order = list(range(len(input.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _restructure(input, lambda e: e.permute(order))


@rule("t", "T", "mT", "adjoint", "H", "mH")
def matrix_transpose(input: Node) -> Node:
    return transpose(input, -2, -1) if len(input.shape) > 1 else input


@rule("permute")
def permute(input: Node, *dims: Any) -> Node:
    return _restructure(input, lambda e: e.permute(_flat(dims)))


@rule("movedim", "moveaxis")
def movedim(input: Node, source: int, destination: int) -> Node:
    return _restructure(input, lambda e: _move(e, source, destination))


@rule("expand", "broadcast_to")
def expand(input: Node, *sizes: Any, **_: object) -> Node:
    target = _flat(sizes)
    missing = len(target) - len(input.shape)
    target = [
        input.shape[i - missing] if size == -1 else int(size) for i, size in enumerate(target)
    ]
    return _restructure(input, lambda e: e.expand(target))


@rule("expand_as")
def expand_as(input: Node, other: Any) -> Node:
    return _restructure(input, lambda e: e.expand(tuple(other.shape)))


@rule("reshape", "view", "unflatten_to")
def reshape(input: Node, *shape: Any) -> Node:
    target = [int(size) for size in _flat(shape)]
    if -1 in target:
        known = 1
        for size in target:
            known *= size if size != -1 else 1
        total = 1
        for size in input.shape:
            total *= size
        target[target.index(-1)] = total // known
    return _restructure(input, lambda e: e.reshape(target))


@rule("flatten", "ravel")
def flatten(input: Node, start_dim: int = 0, end_dim: int = -1) -> Node:
    rank = len(input.shape)
    if rank == 0:
        return reshape(input, [1])
    start, end = start_dim % rank, end_dim % rank
    middle = 1
    for size in input.shape[start : end + 1]:
        middle *= size
    return reshape(input, [*input.shape[:start], middle, *input.shape[end + 1 :]])


@rule("unbind", "iter")
def unbind(input: Node, dim: int = 0) -> list[Node]:
    return [_restructure(input, lambda e, i=i: e.take(i, dim)) for i in range(input.shape[dim])]  # type: ignore[misc]


@rule("select")
def select(input: Node, dim: int, index: int) -> Node:
    return _restructure(input, lambda e: e.take(index, dim))


@rule("narrow")
def narrow(input: Node, dim: int, start: int, length: int) -> Node:
    return _restructure(input, lambda e: e.take(torch.arange(start, start + length), dim))


@rule("index_select")
def index_select(input: Any, dim: int, index: Any) -> Node:
    key = [slice(None)] * (dim % len(input.shape)) + [index]
    return getitem(input, tuple(key))


@rule("diag_embed")
def diag_embed(input: Node, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Node:
    if offset or (dim1, dim2) != (-2, -1):
        raise Unsupported("diag_embed with an offset or other dims")
    value = expression(input)
    eye = torch.eye(value.shape[-1], dtype=torch.float64)
    return value.unsqueeze(-1) * Expression.constant(eye, selects=True)


@rule("diag")
def diag(input: Node, diagonal: int = 0) -> Node:
    return diag_embed(input, diagonal) if len(input.shape) == 1 else diagonal_(input, diagonal)


@rule("diagonal")
def diagonal_(input: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    rank = len(input.shape)
    if offset or {dim1 % rank, dim2 % rank} != {rank - 2, rank - 1}:
        raise Unsupported("a diagonal with an offset or of other dims than the last two")
    position = Discrete.data(torch.arange(min(input.shape[-2:])))
    return take_discrete(expression(input), [rank - 2, rank - 1], [position, position])


# ---- cases -----------------------------------------------------------------------------------


@rule("where")
def where(condition: Any, input: object = None, other: object = None) -> Node:
    if input is None:
        raise Unsupported("where with one argument")
    if isinstance(condition, Expression):
        raise Unsupported("a condition on a continuous latent")
    case = condition if isinstance(condition, Discrete) else Discrete.data(condition)
    a, b = _as_discrete(input), _as_discrete(other)
    if a is not None and b is not None and (a.atoms or b.atoms or case.atoms):
        yes, no = _as_integer_pair(a, b)
        return case.combine(
            yes, lambda c, x: torch.where(c.bool(), x, torch.zeros_like(x))
        ).combine(
            case.combine(no, lambda c, x: torch.where(c.bool(), torch.zeros_like(x), x)), torch.add
        )
    holds, fails = case.apply(lambda t: t.bool()), case.apply(torch.logical_not)
    return holds.expression() * expression(input) + fails.expression() * expression(other)


def _as_integer_pair(a: Discrete, b: Discrete) -> tuple[Discrete, Discrete]:
    common = torch.promote_types(a.table.tensor.dtype, b.table.tensor.dtype)
    return a.apply(lambda t: t.to(common)), b.apply(lambda t: t.to(common))


@rule("stack")
def stack(tensors: Sequence[object], dim: int = 0) -> Node:
    parts = [expression(tensor) for tensor in tensors]
    rank = parts[0].dim + 1
    dim %= rank
    total = Expression.constant(0.0)
    for i, part in enumerate(parts):
        position = torch.zeros(len(parts), dtype=torch.float64)
        position[i] = 1
        view = position.reshape([-1] + [1] * (rank - 1 - dim))
        total = total + Expression.constant(view, selects=True) * part.unsqueeze(dim)
    return total if len(parts) > 1 else parts[0].unsqueeze(dim)


@rule("cat", "concat", "concatenate")
def cat(tensors: Sequence[object], dim: int = 0) -> Node:
    parts = [expression(tensor) for tensor in tensors]
    dim %= parts[0].dim
    total_size = sum(part.shape[dim] for part in parts)
    total = Expression.constant(0.0)
    start = 0
    for part in parts:
        size = part.shape[dim]
        place = torch.arange(total_size) - start
        inside = (place >= 0) & (place < size)
        moved = part.take(place.clamp(0, size - 1), dim)
        view = inside.double().reshape([-1] + [1] * (part.dim - 1 - dim))
        total = total + Expression.constant(view, selects=True) * moved
        start += size
    return total


@rule("one_hot")
def one_hot(input: Node, num_classes: int = -1) -> Node:
    value = _table_only(input, "one_hot")
    size = num_classes if num_classes > 0 else int(value.table.tensor.max()) + 1
    return value.one_hot(size)


# ---- indexing --------------------------------------------------------------------------------


@rule("getitem")
def getitem(input: Any, key: Any) -> Node:
    """NumPy indexing: integers, slices, None, Ellipsis, integer or boolean data, discrete latents."""
    if not isinstance(input, Expression | Discrete):
        input = Expression.constant(input)
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [torch.as_tensor(k) if isinstance(k, list) else k for k in keys]
    if any(isinstance(k, Expression) for k in keys):
        raise Unsupported("indexing by a continuous latent")
    keys = _spell_out(keys, len(input.shape))
    if isinstance(input, Discrete):
        if any(isinstance(k, Discrete) for k in keys):
            raise Unsupported("indexing one discrete latent by another")
        return input.restructured(lambda e: _getitem(e, keys))
    return _getitem(input, keys)


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


def function_name(function: Any) -> str:
    """The bare name of a torch function, method or property getter."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        name = getattr(function.__self__, "__name__", name)
    return name.strip("_")
