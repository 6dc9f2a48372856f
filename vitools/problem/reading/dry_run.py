"""What would a run cost in memory? Asked without paying.

An operation whose result would be too large is not carried out: its result is a *placeholder*, a
tensor of the right shape whose elements are all the same zero in memory (stride 0). Views of a
placeholder are placeholders, and so is whatever is computed from one; everything else is real. So
a model of any size can be run for its sites and shapes: ``phi[z]`` of a topic model with half a
million tokens and ten thousand words costs nothing.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from vitools.errors import NotSupportedError
from vitools.problem.sites import is_subsample

WIDEST = 16
"""Bytes of the widest element there is (complex128)."""
SMALL = 2**24
"""Bytes of a tensor that a dry run makes without a thought."""
SHARE = 1 / 4
"""The part of a device's memory that one tensor may take: a density needs about three at once."""
SQUARING = {f"aten::{name}" for name in (
    "eye", "diag_embed", "_pdist_forward", "linalg_qr", "_linalg_svd",
)}  # fmt: skip
"""Operations whose result may have the square of the elements of their argument."""
ADVICE = (
    "cavi() needs no densities and fits models of this size; for the rest take less data, or sum "
    "equal rows up into counts."
)


class TooLargeError(NotSupportedError):
    """A tensor would take more memory than it may, or values are needed that were not computed."""


def room() -> float:
    """The bytes that one tensor may take; infinite where the system does not tell its memory."""
    return SHARE * _memory(torch.device("cpu"))


@dataclass(frozen=True)
class Need:
    """The largest tensor of a run, and the sample statement that it was made for."""

    bytes: int
    shape: tuple[int, ...]
    device: torch.device
    site: str | None = None

    @property
    def exceeds_memory(self) -> bool:
        return self.bytes > SHARE * _memory(self.device)

    def refusal(self, subject: str) -> TooLargeError:
        """The error that says whose tensor it is, how large, and what to do instead."""
        whose = f"site '{self.site}' needs" if self.site else "it needs"
        return TooLargeError(
            f"{subject}: {whose} a tensor of {_words(self.bytes)} "
            f"({' × '.join(map(str, self.shape))}); one tensor may take a quarter of the "
            f"{_words(_memory(self.device))} of memory here. {ADVICE}"
        )


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return float("inf")


def _unknown(func: Any) -> TooLargeError:
    return TooLargeError(
        f"the model is too large to be run on values here, but its operation {func} asks for some. "
        f"Give all sites shapes and structure that do not depend on values. {ADVICE}"
    )


def _words(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size < 1e12 else f"{size / 1e9:.0f} GB"


class RunMode(TorchDispatchMode):
    """Sees the operations of a model's run."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler, a second and more, to keep it out

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True


class MemoryLimit(RunMode):
    """Inside the block no operation makes a tensor of more than ``limit`` bytes.

    Args:
        placeholder: whether a placeholder takes its place; if not, :class:`TooLargeError` is raised.

    Attributes:
        need: the largest tensor that was not made, ``None`` if all were.
    """

    def __init__(self, limit: float, *, placeholder: bool = False) -> None:
        super().__init__()
        self.limit, self.placeholder = limit, placeholder
        self.need: Need | None = None
        self._zeros: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._places: set[int] = set()

    def is_placeholder(self, tensor: Tensor) -> bool:
        """Whether the elements of ``tensor`` were not computed."""
        return (
            bool(self._places)
            and tensor.layout == torch.strided
            and tensor.untyped_storage().data_ptr() in self._places
        )

    def watch(self) -> Messenger:
        """The Pyro handler that lets ``need`` say which site it was for; goes around the model."""
        return _Watch(self)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload) or func.is_view:  # a view makes no elements
            return func(*args, **kwargs)
        bound, fed = self._bound(args)
        if func._schema.name in SQUARING:
            bound *= bound
        if not fed and bound * WIDEST <= self.limit:
            return func(*args, **kwargs)
        return self._sized(func, args, kwargs, fed)

    def _bound(self, args: tuple[Any, ...]) -> tuple[int, bool]:
        """A bound on the number of elements of the result; whether a placeholder goes in.

        Operations make no more elements than there are pairs, triples, … of those they are given,
        times the sizes among their arguments (of ``zeros``, ``repeat``); a few make squares.
        """
        bound, fed = 1, False
        for argument in args:
            for part in argument if isinstance(argument, list | tuple) else (argument,):
                if isinstance(part, Tensor):
                    bound *= part.numel() or 1
                    fed = fed or self.is_placeholder(part)
                elif isinstance(part, int) and part > 1:
                    bound *= part
        return bound, fed

    def _sized(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], fed: bool) -> Any:
        """Carry out the operation if its result is small; else stand in for it, or refuse."""
        if fed and func._schema.is_mutable:  # x.normal_(), where x has no elements to fill
            if func._schema.name.endswith("_") and self.is_placeholder(args[0]):
                return args[0]
            raise _unknown(func)
        device = next((a.device for a in tree_leaves(args) if isinstance(a, Tensor)), None)
        device = torch.device(kwargs.get("device") or device or "cpu")
        try:
            on_meta = kwargs | ({"device": "meta"} if "device" in kwargs else {})
            made = func(*tree_map(_shape_only, args), **tree_map(_shape_only, on_meta))
        except Exception as error:  # the shape depends on values, or torch has no rule for it
            if fed:
                raise _unknown(func) from error
            return func(*args, **kwargs)
        leaves = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        worst = max(leaves, key=lambda leaf: leaf.nbytes, default=None)
        if worst is None and fed:  # a check of values that were not computed
            return made
        if worst is None or not (fed or worst.nbytes > self.limit):
            return func(*args, **kwargs)
        need = Need(worst.nbytes, tuple(worst.shape), device)
        if not self.placeholder:
            raise need.refusal("the model, run on values")
        if need.bytes > max(self.limit, self.need.bytes if self.need else 0):
            self.need = need
        return tree_map(lambda leaf: self._placeholder(leaf, device), made)

    def _placeholder(self, shape_only: Any, device: torch.device) -> Any:
        if not isinstance(shape_only, Tensor):
            return shape_only
        key = shape_only.dtype, device
        if key not in self._zeros:
            self._zeros[key] = torch.zeros((), dtype=key[0], device=device)
            self._places.add(self._zeros[key].untyped_storage().data_ptr())
        return self._zeros[key].detach().expand(shape_only.shape)


def _shape_only(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


class _Watch(Messenger):
    def __init__(self, sizes: MemoryLimit) -> None:
        super().__init__()
        self.sizes, self.named = sizes, sizes.need

    def _pyro_sample(self, msg: Any) -> None:
        need = self.sizes.need
        if need is not self.named and not is_subsample(msg):
            assert need is not None
            self.named = self.sizes.need = replace(need, site=msg["name"])


class DryRun(MemoryLimit):
    """Inside the block every tensor that is not small has a placeholder."""

    def __init__(self) -> None:
        super().__init__(SMALL, placeholder=True)
