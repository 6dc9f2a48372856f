"""Any operation on discrete latents that stand in no plate: a table, computed value by value.

What torch computes from a, b ∈ {0, …} is one tensor for each pair of values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vitools.calculus.algebra.atoms import Atom, Constant, fresh
from vitools.calculus.algebra.cases import place_labels
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term, drop_unused_out
from vitools.calculus.tracing.operations.rules import as_function_of_discrete

MOST_VALUES = 1000


def of_every_value(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Expression | Discrete | None:
    """``function(*args, **kwargs)``, in which nodes stand; None where it is no such table."""
    places: list[Atom] = []
    tables: list[tuple[Constant, tuple[int | None, ...], tuple[int, ...]]] = []

    def enter(value: Any) -> Any:
        """Nodes are numbered; what is no table is left, and found below."""
        if not isinstance(value, Expression | Discrete):
            return value
        table = as_function_of_discrete(value)
        if table is None or any(place_labels(atom) for atom in table.atoms):
            return value
        term = table.term.freshen()
        for atom in term.atoms():
            known = next((p for p in places if _same_element(p, atom)), None)
            if known is None:
                places.append(atom)
            else:
                term = term.rename({atom.indices[-1]: known.indices[-1]})  # type: ignore[dict-item]
        (constant,) = term.constants()
        tables.append((constant, term.out, table.shape))
        return _Numbered(len(tables) - 1)

    args, kwargs = tree_map(enter, (list(args), dict(kwargs)))
    if not places or _holds_nodes((args, kwargs)):
        return None
    supports = [place.indices[-1] for place in places]
    sizes = {x: n for c, *_ in tables for x, n in zip(c.labels, c.tensor.shape, strict=True)}
    counts = [sizes[x] for x in supports]  # type: ignore[index]
    if torch.Size(counts).numel() > MOST_VALUES:
        return None
    results = []
    for case in itertools.product(*map(range, counts)):
        at = dict(zip(supports, case, strict=True))

        def value(node: Any, at: dict[Any, int] = at) -> Any:
            return _at(*tables[node.number], at) if isinstance(node, _Numbered) else node

        given, options = tree_map(value, (args, kwargs))
        results.append(function(*given, **options))
    if not all(isinstance(result, Tensor) for result in results):
        return None
    shape = results[0].shape
    out = tuple(None if size == 1 else fresh() for size in shape)
    kept = [size for size in shape if size != 1]
    values = torch.stack(results).reshape([*counts, *kept])
    labels = (*supports, *(x for x in out if x is not None))
    term = drop_unused_out(Term(1.0, (*places, Constant(values, labels)), out))  # type: ignore[arg-type]
    table = Discrete(term, shape)
    return table.expression() if values.is_floating_point() else table


class _Numbered:
    """In the place of a node."""

    def __init__(self, number: int):
        self.number = number


def _holds_nodes(tree: Any) -> bool:
    found: list[bool] = []
    tree_map(lambda value: found.append(isinstance(value, Expression | Discrete)), tree)
    return any(found)


def _same_element(a: Atom, b: Atom) -> bool:
    return Atom(a.site, 0.0, a.indices[:-1]).same_place(Atom(b.site, 0.0, b.indices[:-1]))


def _at(
    table: Constant, out: Sequence[int | None], shape: Sequence[int], case: Mapping[Any, int]
) -> Tensor:
    """The table's tensor where the latents have the given values."""
    tensor, labels = table.tensor, list(table.labels)
    for label, index in case.items():
        if label in labels:
            tensor = tensor.select(labels.index(label), index)
            labels.remove(label)
    order = [labels.index(x) for x in out if x in labels]
    view = [n if x in labels else 1 for x, n in zip(out, shape, strict=True)]
    return tensor.permute(order).reshape(view).expand(tuple(shape))
