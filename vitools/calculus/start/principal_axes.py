"""Starting factor models on principal axes.

A likelihood that sees two Gaussian sites only through Σ_d w_rd x_nd is unchanged when both are
turned by one rotation V (w → Vᵀw, x → Vᵀx). The priors prefer w with orthogonal columns, but
coordinate ascent turns factors slowly where the noise is small (Luttinen and Ilin 2010,
"Transformations in variational Bayesian factor analysis to speed up learning"). So a random start
is swept a few times, and after each sweep both sites are turned to the principal axes of w, the one
with fewer rows, and stretched along them until x has the variance that its prior gives it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.blocks.block import Block
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.model import ConjugateModel
from vitools.calculus.streams.streamed import StreamedBlock

# After so many sweeps of a random start the leading subspace is found well enough.
ROUNDS = 4
# At the start the data say so much more about x than its prior does; with less, factors die out.
LOUDNESS = 100.0


def turn_to_principal_axes(model: ConjugateModel) -> bool:
    """Sweep the continuous sites of a factor model, turning its factors after each sweep.

    Returns whether it has factors to be turned.
    """
    pairs = list(rotatable_pairs(model))
    if not pairs:
        return False
    loadings = [first for first, _ in pairs]
    later = [b for b in model.blocks if b not in loadings and not isinstance(b, DiscreteBlock)]
    for first, second in pairs:
        _match_scale(model, first, second)
    for _ in range(ROUNDS):
        for block in [*later[::-1], *loadings]:
            model.update(block)
        for first, second in pairs:
            flat = first.mean.reshape(-1, first.size)
            axes = torch.linalg.eigh(flat.mT @ flat).eigenvectors.flip(-1)  # the largest first
            _turn(model, first, second, axes, axes)
            stretch = _stretch_to_prior(model, second)
            if stretch is not None:
                _turn(model, first, second, torch.diag(1 / stretch), torch.diag(stretch))
    return True


Scores = GaussianBlock | StreamedBlock


def _turn(
    model: ConjugateModel, first: GaussianBlock, second: Scores, axes: Tensor, other: Tensor
) -> None:
    """w → Vᵀw and x → Uᵀx for UVᵀ = I; streamed x follow from w at once."""
    first.turn(axes)
    if isinstance(second, StreamedBlock):
        model.update(second)
    else:
        second.turn(other)


def _match_scale(model: ConjugateModel, first: GaussianBlock, second: Scores) -> None:
    """Scale w so that data of any unit give x a precision LOUDNESS times its starting one."""
    precision = torch.zeros((), dtype=torch.float64)
    for link in model.links[second]:
        if first in model.term_blocks[link.term] and _statistic(second, link.key)[0] == "product":
            message = link.value().expand(second.statistic_shape(link.key))
            precision = precision - 2 * message.diagonal(dim1=-2, dim2=-1).mean()
    if precision > 0:
        scale = (LOUDNESS / precision).sqrt()
        linear, quadratic = first.natural
        first.restore((linear / scale, quadratic / scale**2))


def _stretch_to_prior(model: ConjugateModel, second: Scores) -> Tensor | None:
    """What brings x along each axis to the variance that its prior gives it, if that is a number.

    Left to the updates, the lengths of w and x are found the more slowly the less the noise.
    """
    dense = gaussian(second)
    assert dense is not None
    priors = model.messages(second, given=())
    squares = [k for k in priors if _statistic(second, k) == ("square", dense.names[0])]
    if len(squares) != 1 or dense.mask is not None or dense.kept is not None:
        return None
    (key,) = squares
    prior = priors[key].expand(second.statistic_shape(key)).reshape(-1, dense.size)
    found = second.moments[key].reshape(-1, dense.size)
    if isinstance(second, StreamedBlock):
        if not second.features[key].is_constant:
            return None
        found = found / second.count  # a sum over rows
    return ((-0.5 / prior).mean(0) / found.mean(0)).sqrt()


def gaussian(block: Block) -> GaussianBlock | None:
    """The Gaussian block that a block is, or whose rows it streams."""
    dense = block.dense if isinstance(block, StreamedBlock) else block
    return dense if isinstance(dense, GaussianBlock) else None


def _statistic(block: Scores, key: Any) -> Any:
    return block.statistics[key].key if isinstance(block, StreamedBlock) else key


def rotatable_pairs(model: ConjugateModel) -> Iterator[tuple[GaussianBlock, Scores]]:
    """Loadings and scores: blocks of one partner each, of which terms see only the inner product."""
    partners: dict[Block, dict[Block, None]] = {}
    fixed: set[Block] = set()
    for term in model.joint.terms:
        blocks = dict.fromkeys(
            model.block_of[atom.site] for atom in term.atoms if atom.site in model.block_of
        )
        together = {block: dense for block in blocks if (dense := gaussian(block)) is not None}
        if len(together) < 2:
            continue
        for block in together:
            partners.setdefault(block, {}).update(dict.fromkeys(b for b in together if b != block))
        if len(together) != 2 or not _inner_product(term, *together.values()):
            fixed.update(together)
    for first, others in partners.items():
        second = next(iter(others))
        alone = len(others) == 1 and len(partners[second]) == 1
        earlier = model.blocks.index(first) < model.blocks.index(second)
        if alone and earlier and first not in fixed:
            loadings, scores = sorted((first, second), key=_rows)
            if isinstance(loadings, GaussianBlock) and isinstance(scores, Scores):
                yield loadings, scores


def _rows(block: Block) -> int:
    dense = gaussian(block)
    assert dense is not None
    return math.prod(dense.batch_shape)


def _inner_product(term: ClosedTerm, first: GaussianBlock, second: GaussianBlock) -> bool:
    """Whether each label on a joint axis stands once in either block and nowhere else."""
    joint: dict[str, list[int]] = {}
    rest = list(term.constant_labels())
    for block in (first, second):
        (name, *more), axes = block.names, block.joint_axes[block.names[0]]
        if more or block.elementwise or len(axes) != 1:
            return False
        joint[name] = []
    for atom in term.atoms:
        labels = list(atom.labels)
        if atom.site in joint:
            if atom.function != 1.0:
                return False
            (axis,) = (*first.joint_axes.get(atom.site, ()), *second.joint_axes.get(atom.site, ()))
            joint[atom.site].append(labels.pop(axis))
        rest += labels
    one, other = (sorted(labels) for labels in joint.values())
    return one == other and len(set(one)) == len(one) and not set(one) & set(rest)
