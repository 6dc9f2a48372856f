"""Numbers that a recorded function reads out of tensors: ``int(x.max())``, ``float(x)``, ``if x > 0``.

A recording holds for all parameters and draws. A number that follows from the data alone is the same
at each of them and may be read; one that depends on a parameter or on noise may not, and torch raises.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
)
from torch.utils._python_dispatch import TorchDispatchMode

from vitools.graphs.mutation import is_mutable
from vitools.graphs.noise import is_random

READING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


class NumbersOfData(TorchDispatchMode):
    """Inside ``make_fx`` lets numbers be read that follow from the data alone.

    Args:
        captured: tensors that the function reads and that will change: the parameters.
    """

    def __init__(self, captured: Sequence[Tensor]) -> None:
        super().__init__()
        self.captured = {id(tensor) for tensor in captured}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler, a second and more, to keep it out

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in READING and all(map(self._is_of_data, args)):
            with disable_proxy_modes_tracing():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _is_of_data(self, tensor: Any) -> bool:
        mode = get_proxy_mode()
        if mode is None or not isinstance(tensor, Tensor):
            return False
        if id(tensor) in self.captured:
            return False
        slot: Any = get_proxy_slot(tensor, mode.tracer, None)
        if slot is None:  # it was never computed with: it is data as given
            return True
        return not any(map(self._moves, _behind(slot.proxy.node)))

    def _moves(self, node: Node) -> bool:
        """Whether a node has another value at each step."""
        if node.op == "get_attr":
            mode = get_proxy_mode()
            assert mode is not None
            root: Any = getattr(mode.tracer, "root", None)
            return id(getattr(root, str(node.target))) in self.captured
        return node.op == "placeholder" or is_random(node)


def _behind(node: Node) -> Collection[Node]:
    """All that a node's value follows from, what is written into it by ``x[i] = …`` included."""
    graph: Graph = node.graph
    writes = [n for n in graph.nodes if is_mutable(n)]
    found: dict[Node, None] = {}
    waiting = [node]
    while waiting:
        while waiting:
            here = waiting.pop()
            if here not in found:
                found[here] = None
                waiting += here.all_input_nodes
        for write in writes:  # of a view: whatever shares its memory is among those found
            target = write.args[0]
            while isinstance(target, Node) and target not in found and target.all_input_nodes:
                target = target.all_input_nodes[0]
            if write not in found and target in found:
                waiting.append(write)
    return found
