"""Graphs without mutation: ``x.op_()`` becomes ``x = x.op()``.

A recorded graph holds the in-place operations that the model and torch's own distributions use;
to be rearranged it must be free of them.
"""

from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten


def drop_detached(graph: Graph) -> None:
    """Removes what only cut a gradient: the graph has its gradients written out."""
    for node in list(graph.nodes):
        if node.target in (aten.detach.default, aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def replace_mutations(graph: Graph) -> bool:
    """Turns ``x.op_()`` into ``x = x.op()`` where no view shares x's memory; True if all are gone.

    Raises:
        ValueError: a tensor from outside would be changed.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    mutable = [node for node in graph.nodes if is_mutable(node)]
    for node in mutable:
        changed, here = node.args[0], order[node]
        if isinstance(changed, Node) and _origin(changed).op == "get_attr":
            raise ValueError(f"the model changes its own state by {node.target}")
        pure = _without_mutation(node.target)
        if (
            pure is None
            or not isinstance(changed, Node)
            or changed.op != "call_function"
            or _is_view(changed)
            or any(_is_view(user) for user in changed.users if order[user] < here)
        ):
            return False
        with graph.inserting_before(node):
            replacement = graph.call_function(pure, node.args, node.kwargs)
        replacement.meta = dict(node.meta)
        order[replacement] = here
        changed.replace_all_uses_with(
            replacement,
            delete_user_cb=lambda user: order[user] > here,  # noqa: B023
        )
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
    return True


def _without_mutation(operation: Any) -> Any:
    """``aten.add.Tensor`` for ``aten.add_.Tensor``; None where there is no such pair."""
    name, overload = operation._schema.name.removeprefix("aten::"), operation._overloadname
    first, *others = operation._schema.arguments
    if not name.endswith("_") or first.alias_info is None:
        return None
    if any(other.alias_info is not None and other.alias_info.is_write for other in others):
        return None
    pure = "normal_functional" if name == "normal_" else name.removesuffix("_")
    return getattr(getattr(aten, pure, None), overload, None)


def _origin(node: Node) -> Node:
    """The node whose memory a chain of views looks at."""
    while node.op == "call_function" and _is_view(node) and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def is_mutable(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _is_view(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)
