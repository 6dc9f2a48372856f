"""Links: what one term says to one statistic of a block, ready to be computed again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant, fresh
from vitools.calculus.blocks.block import Block, Resolved
from vitools.calculus.blocks.gates.gate import GateBlock
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.reduction.contraction import Node, Operand


@dataclass
class Link:
    """One term's message to one statistic of a block."""

    key: Any
    node: Node
    order: tuple[int, ...]
    view: tuple[int, ...]
    coefficient: float
    term: int

    def value(self) -> Tensor:
        tensor = self.node.value()
        if len(self.order) > 1:
            tensor = tensor.permute(self.order)
        return tensor.reshape(self.view) * self.coefficient


def make_link(
    message: Operand, target: Resolved, sizes: dict[int, int], coefficient: float, term: int
) -> Link:
    order = tuple(message.labels.index(x) for x in target.labels if x in message.labels)
    view = tuple(sizes[x] if x in message.labels else 1 for x in target.labels)
    return Link(target.key, message.node, order, view, coefficient, term)


def separated(term: ClosedTerm, block_of: Mapping[str, Block]) -> ClosedTerm:
    """Two elements of a joint Gaussian on the same label get an identity between them."""
    seen: dict[Block, set[int]] = {}
    atoms, constants = [], list(term.constants)
    for atom in term.atoms:
        block = block_of[atom.site]
        if isinstance(block, GaussianBlock | GateBlock):
            labels = list(atom.labels)
            used = seen.setdefault(block, set())
            for axis in block.joint_axes[atom.site]:
                if labels[axis] in used:
                    copy = fresh()
                    eye = torch.eye(block.shapes[atom.site][axis], dtype=torch.float64)
                    constants.append(Constant(eye, (labels[axis], copy)))
                    labels[axis] = copy
                used.add(labels[axis])
            atom = Atom(atom.site, atom.function, tuple(labels))
        atoms.append(atom)
    return replace(term, atoms=tuple(atoms), constants=tuple(constants))


def label_sizes(term: ClosedTerm, resolved: Mapping[Block, Resolved]) -> dict[int, int]:
    """The length of the axis of every label in a term."""
    sizes: dict[int, int] = {}
    for constant in term.constants:
        sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
    for selection in term.selections:
        sizes.update(zip(selection.labels, selection.index.shape, strict=True))
        sizes[selection.target] = selection.size
    for block, r in resolved.items():
        sizes.update(zip(r.labels, block.statistic_shape(r.key), strict=True))
    return sizes
