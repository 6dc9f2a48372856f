"""Random operations that become inputs of a graph, drawn outside for several steps at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

aten = torch.ops.aten

BY_SIZE = {aten.rand.default, aten.randn.default}
BY_EXAMPLE = {
    aten.rand_like.default: aten.rand.default,
    aten.randn_like.default: aten.randn.default,
}
ELEMENTWISE = {
    aten.normal_functional.default,
    aten.uniform.default,
    aten.exponential.default,
    aten.cauchy.default,
    aten.log_normal.default,
}


@dataclass(frozen=True)
class Noise:
    """One random operation that became an input."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def draw(self, count: int, *, as_recorded: bool = False) -> Tensor:
        """``[count, *shape]`` from torch's global generator.

        Args:
            as_recorded: by the recorded operation even where there is a cheaper one.
        """
        first, *rest = self.args
        if as_recorded and self.operation is distinct:
            return _first_of_all(first, *rest, **self.kwargs).unsqueeze(0)
        if self.operation in BY_SIZE:
            return self.operation([count, *first], *rest, **self.kwargs)
        if self.operation in ELEMENTWISE:
            blank = first.new_empty((count, *first.shape))
            return self.operation(blank, *rest, **self.kwargs)
        return torch.stack([self.operation(*self.args, **self.kwargs) for _ in range(count)])


def distinct(total: int, size: int, **kwargs: Any) -> Tensor:
    """The first ``size`` of a random order of ``0 … total - 1``, without the others where few.

    Draws with repetition are thrown away until one has none, which is soon where size² < total.
    """
    if size * size >= total:
        return _first_of_all(total, size, **kwargs)
    while True:
        draw = torch.randint(total, (size,), **kwargs)
        if len(draw.unique()) == size:
            return draw


def _first_of_all(total: int, size: int, **kwargs: Any) -> Tensor:
    return torch.randperm(total, **kwargs)[:size]


def noise_of(node: Node, known: Mapping[Node, Any]) -> tuple[Noise, Node] | None:
    """The noise of a random operation, and the node that has its value; None if it must stay.

    Args:
        known: values of the nodes that depend on no parameter; an operation on others stays.
    """
    if node.target in BY_EXAMPLE:
        like = node.meta["val"]
        kwargs = {"dtype": like.dtype, "device": like.device}
        return Noise(BY_EXAMPLE[node.target], (list(like.shape),), kwargs), node
    filled = node.args[0] if node.target in ELEMENTWISE else None  # its numbers are not looked at
    if not all(argument in known or argument is filled for argument in node.all_input_nodes):
        return None
    blank = None if filled is None else _blank(node.meta["val"])
    given = (blank, *node.args[1:]) if blank is not None else node.args
    args, kwargs = map_arg((given, node.kwargs), known.__getitem__)
    chosen = _first_of_a_random_order(node)
    if chosen is None:
        return Noise(node.target, args, kwargs), node
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"} | {"dtype": torch.int64}
    return Noise(distinct, (args[0], chosen.meta["val"].shape[0]), kwargs), chosen


def _blank(like: Tensor) -> Tensor:
    """A tensor of this kind that takes no memory."""
    return torch.empty((), dtype=like.dtype, device=like.device).expand(tuple(like.shape))


def _first_of_a_random_order(node: Node) -> Node | None:
    """The node ``randperm(n)[:size]``, where ``node`` is the ``randperm`` and has no other use."""
    if node.target is not aten.randperm.default or len(node.users) != 1:
        return None
    (user,) = node.users
    begins = user.args[1:3] in ((), (0,), (0, 0), (0, None))
    if user.target is not aten.slice.Tensor or not begins or len(user.args) > 4:
        return None
    return user


def is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
