"""Factors with a letter on every dim, and sums and products of them in log space.

A *factor* is the log density of one site, packed: size-one dims squeezed, one letter
per remaining dim in ``tensor._pyro_dims``. Letters stand for plates or enumerated sites.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from torch import Tensor

Ordinal = frozenset[str]


class TraceableLogRing(LogRing):
    """Log-space sum-products by broadcasting and ``logsumexp``; plates carry minibatch weights."""

    def __init__(self, plate_weights: Mapping[str, float], sizes: dict[str, int]) -> None:
        super().__init__(cache={}, dim_to_size=sizes)
        self.plate_weights = plate_weights

    def sumproduct(self, terms: list[Any], dims: Any) -> Tensor:
        """log Σ exp of a sum of terms, one dim after another.

        Each step eliminates the dim that leaves the smallest table, so that a chain costs
        its length and not the product of its supports.
        """
        terms = list(terms)
        size = {d: n for t in terms for d, n in zip(t._pyro_dims, t.shape, strict=True)}
        pending = set(dims) & set(size)
        while pending:
            reach = {
                d: set().union(*(t._pyro_dims for t in terms if d in t._pyro_dims)) for d in pending
            }
            first = min(sorted(pending), key=lambda d: math.prod(size[k] for k in reach[d]))
            together = [t for t in terms if first in t._pyro_dims]
            terms = [t for t in terms if first not in t._pyro_dims]
            elsewhere = set().union(*(t._pyro_dims for t in terms)) if terms else set()
            done = (reach[first] & pending) - elsewhere
            terms.append(_log_sum(_add(together), done))
            pending -= done
        return _add(terms)

    def product(self, term: Any, ordinal: Ordinal) -> Any:
        for letter in sorted(ordinal):
            dims = term._pyro_dims
            position = dims.find(letter)
            weight = self.plate_weights[letter]
            if position < 0 and weight == 1.0:
                continue
            total = (term.sum(position) if position >= 0 else term) * weight
            total._pyro_dims = dims.replace(letter, "")
            term = total
        return term


def _add(terms: list[Any]) -> Any:
    """The sum of packed tensors, broadcast by letter."""
    letters = "".join(sorted(set("".join(term._pyro_dims for term in terms))))
    total: Any = None
    for term in terms:
        own = term._pyro_dims
        ordered = term.permute(sorted(range(len(own)), key=own.__getitem__))
        ordered = ordered[tuple(slice(None) if d in own else None for d in letters)]
        total = ordered if total is None else total + ordered
    total = total[...]  # a new tensor object, which must carry its own letters
    total._pyro_dims = letters
    return total


def _log_sum(term: Any, dims: set[str]) -> Any:
    result: Any = torch.logsumexp(term, [i for i, d in enumerate(term._pyro_dims) if d in dims])
    result._pyro_dims = "".join(d for d in term._pyro_dims if d not in dims)
    return result


@dataclass(frozen=True)
class SiteFactor:
    """Packed log density of one site and the plates (letters) it lives in.

    Attributes:
        log_density: masked, but without any scale.
        enumerated: the letter of this site's own values, if it was enumerated.
        scale: a number, or a packed tensor over plates, from ``poutine.scale``.
    """

    name: str
    log_density: Any
    plates: Ordinal
    enumerated: str | None
    scale: Any


def contracted(
    members: Sequence[SiteFactor],
    letters: set[str],
    keep: Ordinal,
    sizes: dict[str, int],
    weights: Mapping[str, float],
) -> Any:
    """Sum enumerated letters out of the product of ``members``, keeping the plates in ``keep``.

    The result has a letter for every plate in ``keep`` that has more than one element.

    Args:
        sizes, weights: of the plates, by letter.
    """
    tree: OrderedDict[Ordinal, list[Any]] = OrderedDict()
    for factor in members:
        tree.setdefault(factor.plates, []).append(factor.log_density)
    wide = frozenset(letter for letter in keep if sizes[letter] > 1)
    ring = TraceableLogRing(weights, sizes)
    if len(members) == 1 and not letters:
        return ring.product(members[0].log_density, members[0].plates - keep)
    return contract_to_tensor(_without(tree, keep - wide), letters, target_ordinal=wide, ring=ring)


def _without(
    tree: "OrderedDict[Ordinal, list[Any]]", letters: Ordinal
) -> "OrderedDict[Ordinal, list[Any]]":
    """The tree with some plates (of one element) forgotten."""
    out: OrderedDict[Ordinal, list[Any]] = OrderedDict()
    for plates, terms in tree.items():
        out.setdefault(plates - letters, []).extend(terms)
    return out
