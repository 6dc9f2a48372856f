"""Discrete latents of one plate read in another: ``c[item]``, the class of each label's item.

Summed out, c has one value for all its elements, laid along a dim of its own, and ``c[item]`` has
nothing to pick from. It is given a dim of its own instead, c', with the same values: a factor that
reads it is a table over c' in the readers' plate. Where element i of c stands in the product of all
the readers n that read it,

    log f_i(c) = Σ_{n: item[n] = i} log f_n(c' = c),

the factor moves to the plate of c, and the sum over c is one of a plate again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import opt_einsum
import torch
from pyro.poutine.runtime import _ENUM_ALLOCATOR
from torch import Tensor
from torch.overrides import TorchFunctionMode

ELEMENTWISE = {
    "abs", "add", "and", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "bool", "clamp",
    "clone", "contiguous", "detach", "div", "double", "eq", "float", "ge", "gt", "int", "invert",
    "le", "logical_and", "logical_not", "logical_or", "logical_xor", "long", "lt", "max", "maximum",
    "min", "minimum", "mod", "mul", "ne", "neg", "or", "pow", "radd", "remainder", "rmul", "rsub",
    "sub", "to", "truediv", "type", "where", "xor",
}  # fmt: skip
"""Functions of each element by itself, of which c[item] is what the function of c is, at item."""


@dataclass(frozen=True, eq=False)
class PlateRead:
    """A copy of a discrete latent, read at elements of its plates.

    Attributes:
        letter: of the copy's own dim in packed tensors.
        positions: ``{dim of a plate of the latent: which of its elements is read}``, each tensor
            with the dims of the reader, counted from the right.
    """

    site: str
    dim: int
    letter: str
    positions: Mapping[int, Tensor]

    def of(self, value: Tensor) -> Tensor:
        """What is read of values ``[*batch_shape]`` of the latent."""
        rank = value.dim()
        zero = torch.zeros((), dtype=torch.long, device=value.device)
        return value[tuple(self.positions.get(d - rank, zero) for d in range(rank))]


class PlateReads(TorchFunctionMode):
    """While a model runs, reads of its enumerated latents across plates give copies.

    Args:
        rank: number of dims on the right that plates take.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.reads: list[PlateRead] = []
        self._owners: dict[int, str] = {}
        self._plate_sizes: dict[str, dict[int, int]] = {}
        self._known: dict[int, tuple[Tensor, torch.Size]] = {}

    def add(self, name: str, value: Tensor, enumerated_dim: int, sizes: Mapping[int, int]) -> None:
        """A latent's enumerated value; ``sizes`` are those of its plates, by dim."""
        self._owners[enumerated_dim] = name
        self._plate_sizes[name] = {d: n for d, n in sizes.items() if n > 1}
        if self._plate_sizes[name]:
            depth = -min(sizes)
            plain = torch.Size(sizes.get(d - depth, 1) for d in range(depth))
            self._known[id(value)] = (value, plain)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if self._known and args and self._is_known(args[0]):
            if name == "getitem" and _picks(args[1]):
                return self._read(args[0], args[1])
            if name in ("iter", "unbind") and not kwargs and args[1:] in ((), (0,)):
                count = self._known[id(args[0])][1][0]
                parts = tuple(self._read(args[0], i) for i in range(count))
                return iter(parts) if name == "iter" else parts
        result = func(*args, **kwargs)
        if self._known and name in ELEMENTWISE and isinstance(result, Tensor):
            self._follow(result, args)
        return result

    def _is_known(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._known

    def _follow(self, result: Tensor, args: Sequence[Any]) -> None:
        """A function of known values, element by element, is known too."""
        tensors = [a for a in args if isinstance(a, Tensor)]
        if not any(map(self._is_known, tensors)):
            return
        plain = []
        for tensor in tensors:
            known = self._known.get(id(tensor))
            if known is None and tensor.dim() > self.rank:
                return
            plain.append(tensor.shape if known is None else known[1])
        self._known[id(result)] = (result, torch.broadcast_shapes(*plain))

    def _read(self, value: Tensor, key: Any) -> Tensor:
        """``value[key]`` as the model means it, of a value without enumerated dims."""
        plain = self._known[id(value)][1]
        depth, keys = len(plain), key if isinstance(key, tuple) else (key,)
        if not any(k is Ellipsis for k in keys):
            # Vindex spells every dim out, the enumerated ones first
            spelled = sum(k is not None for k in keys)
            keys = keys[spelled - depth :] if spelled == value.dim() > depth else keys
        positions = {}
        for d, size in enumerate(plain):
            view = [size if i == d else 1 for i in range(depth)]
            grid = torch.arange(size, device=value.device).reshape(view).expand(plain)
            positions[d - depth] = grid[keys]
        shape = next(iter(positions.values())).shape
        left = value.shape[: value.dim() - self.rank]
        own = value.reshape(left + value.shape[value.dim() - depth :])
        if own.shape[len(left) :].numel() > 1:
            where = [p if own.shape[d] > 1 else torch.zeros_like(p) for d, p in positions.items()]
            picked: tuple[Any, ...] = (..., *where)
            own = own[picked]
            own = own.reshape(left + (1,) * (self.rank - len(shape)) + shape)
        else:
            own = own.reshape(left + (1,) * self.rank)
        for dim in [d for d in range(-own.dim(), -self.rank) if own.shape[d] > 1]:
            own = self._copied(own, dim, positions)
        return own

    def _copied(self, value: Tensor, dim: int, positions: Mapping[int, Tensor]) -> Tensor:
        """The value with an enumerated dim taken by the copy that is read at these positions."""
        site = self._owners[dim]
        own = {d: positions[d] for d in self._plate_sizes[site] if d in positions}
        if all(_is_itself(d, n, own[d]) for d, n in self._plate_sizes[site].items() if d in own):
            return value
        known = next((r for r in self.reads if r.site == site and _equal(r.positions, own)), None)
        if known is None:
            new, id_ = _ENUM_ALLOCATOR.allocate(None)
            known = PlateRead(site, new, opt_einsum.get_symbol(1 + 2 * id_), own)
            self.reads.append(known)
        value = value.reshape((1,) * (-known.dim - value.dim()) + value.shape)
        return value.transpose(dim, known.dim)


def _picks(key: Any) -> bool:
    """Whether indexing does more than insert dims."""
    keys = key if isinstance(key, tuple) else (key,)
    return any(
        isinstance(k, Tensor) or not (k is None or k is Ellipsis or k == slice(None)) for k in keys
    )


def _is_itself(dim: int, size: int, position: Tensor) -> bool:
    """Whether element i is read at i of the same dim."""
    if position.dim() < -dim or position.shape[dim] != size:
        return False
    view = [size] + [1] * (-dim - 1)
    return bool((position == torch.arange(size, device=position.device).reshape(view)).all())


def _equal(a: Mapping[int, Tensor], b: Mapping[int, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[d], b[d]) for d in a)
