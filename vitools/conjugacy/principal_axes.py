"""Starting factor models on principal axes.

A likelihood that sees two Gaussian sites only through Σ_d w_rd x_nd is unchanged when both are
turned by one rotation V (w → Vᵀw, x → Vᵀx). The priors prefer w with orthogonal columns, but
coordinate ascent turns factors slowly where the noise is small (Luttinen and Ilin 2010,
"Transformations in variational Bayesian factor analysis to speed up learning"). So a random start
is swept a few times, and after each sweep both sites are turned to the principal axes of the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vitools.conjugacy.blocks import DiscreteBlock
from vitools.conjugacy.gaussian import GaussianBlock
from vitools.conjugacy.terms import ClosedTerm
from vitools.conjugacy.update import ConjugateModel

# After two sweeps of a random start the leading subspace is found well enough to turn to.
ROUNDS = 2
# At the start the data say so much more about x than its prior does; with less, factors die out.
LOUDNESS = 100.0


def turn_to_principal_axes(model: ConjugateModel) -> None:
    """Sweep the continuous sites of a factor model, turning its factors after each sweep."""
    pairs = list(rotatable_pairs(model))
    if not pairs:
        return
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
            first.turn(axes)
            second.turn(axes)


def _match_scale(model: ConjugateModel, first: GaussianBlock, second: GaussianBlock) -> None:
    """Scale w so that data of any unit give x a precision LOUDNESS times its starting one."""
    precision = torch.zeros((), dtype=torch.float64)
    for link in model.links[second]:
        if first in model.term_blocks[link.term] and link.key[0] == "product":
            message = link.value().expand(second.statistic_shape(link.key))
            precision = precision - 2 * message.diagonal(dim1=-2, dim2=-1).mean()
    if precision > 0:
        scale = (LOUDNESS / precision).sqrt()
        linear, quadratic = first.natural
        first.restore((linear / scale, quadratic / scale**2))


def rotatable_pairs(model: ConjugateModel) -> Iterator[tuple[GaussianBlock, GaussianBlock]]:
    """Blocks that share just one partner, with which the terms see only their inner product."""
    partners: dict[GaussianBlock, dict[GaussianBlock, None]] = {}
    fixed: set[GaussianBlock] = set()
    for term in model.joint.terms:
        blocks = dict.fromkeys(model.block_of[atom.site] for atom in term.atoms)
        gaussian = [block for block in blocks if isinstance(block, GaussianBlock)]
        if len(gaussian) < 2:
            continue
        for block in gaussian:
            partners.setdefault(block, {}).update(dict.fromkeys(b for b in gaussian if b != block))
        if len(gaussian) != 2 or not _inner_product(term, gaussian[0], gaussian[1]):
            fixed.update(gaussian)
    for first, others in partners.items():
        second = next(iter(others))
        alone = len(others) == 1 and len(partners[second]) == 1
        earlier = model.blocks.index(first) < model.blocks.index(second)
        if alone and earlier and first not in fixed:
            yield first, second


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
