"""Coordinate updates in mathematical words: sums of expectations of the other sites and of data.

The optimal factor of a site has the coefficients of its statistics as natural parameters; each
term of E_q log p adds one message to one of them:  ``Σ_rows q(z) · E[tau[z]] · x``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vitools.calculus.algebra.atoms import Atom, Constant, Predictor
from vitools.calculus.blocks.block import Block
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.blocks.gates.gate import GateBlock
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.blocks.nodes.nodes_block import NodesBlock
from vitools.calculus.blocks.tree import TreeBlock
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint, Selection
from vitools.calculus.reduction.folding import connected, fold_term, operand_labels
from vitools.calculus.words.functions import in_words
from vitools.calculus.words.naming import (
    DataNames,
    Named,
    group_words,
    position_of,
    products,
    times_identity,
)
from vitools.calculus.words.nodes import on_nodes
from vitools.calculus.words.predictors import PredictorNames
from vitools.calculus.words.tables import shortened

ROUNDING = 1e-12  # a coefficient that small beside the others is what centring the data left

Message = tuple[float, str]  # a number times words; "" for the number alone


def family(block: Block) -> str:
    """What kind of factor the block is."""
    if isinstance(block, GaussianBlock) and block.elementwise:
        return "Normal, element by element"
    if isinstance(block, NodesBlock):
        return "free form on nodes" if len(block.names) == 1 else "joint free form on nodes"
    return block.family.title or block.family.name


def update(
    block: Block, joint: ExpectedLogJoint, names: DataNames, blocks: Sequence[Block] = ()
) -> str:
    """The optimal factor of a block, its parameters written as sums of messages.

    Args:
        blocks: all factors: the expectation of a product of sites that share one is not the product
            of their expectations.
    """
    if isinstance(block, NodesBlock):
        return on_nodes(block, joint.terms)
    shared = {name: other.names for other in blocks for name in other.names}
    predictors = PredictorNames(joint.terms)
    sums: dict[Any, dict[str, float]] = {}
    several = len(block.names) > 1 and isinstance(block, GaussianBlock | TreeBlock)
    for term in joint.terms:
        mine = [atom for atom in term.atoms if atom.site in block.names]
        if mine:
            writer = _Writer(term, mine, joint, names, predictors, shared)
            number, words = writer.message()
            key = _statistic(block, mine)
            if isinstance(block, FreeFormBlock):
                key = in_words(mine[0].function, mine[0].site)
            if isinstance(block, GaussianBlock | TreeBlock) and key == 2.0:
                labels = _joint_labels(block, mine)
                if labels or not several:
                    words = _on_the_diagonal(words, writer.varies_along(labels))
            if several:
                key = (key, *dict.fromkeys(sorted((a.site for a in mine), key=block.names.index)))
            messages = sums.setdefault(key, {})
            messages[words] = messages.get(words, 0.0) + number

    def total(*keys: Any, scale: float = 1.0, plus: float = 0.0, beside: float = 0.0) -> str:
        messages = [(v * scale, words) for key in keys for words, v in sums.get(key, {}).items()]
        return _added(messages, plus, beside)

    if isinstance(block, FreeFormBlock):
        return (
            f"density ∝ exp({_added(_times_functions(sums), 0.0)}), by a one-dimensional integral"
        )
    if several:
        return _of_several(block.names, sums, total)
    return block.family.words(total)


def _statistic(block: Block, mine: Sequence[Atom]) -> Any:
    """What the atoms of a block amount to, by the name that its family has for it."""
    if isinstance(block, GateBlock):  # in each case
        mine = [atom for atom in mine if atom.site == block.gated.name] or mine[:1]
    return "outer" if len(mine) > 1 else mine[0].function


def _of_several(names: Sequence[str], sums: Mapping[Any, Any], total: Callable[..., str]) -> str:
    """The blocks of the precision matrix and of the linear coefficients, site by site."""
    parts = []
    for name in names:
        parts.append(f"P[{name}] = {total((2.0, name), ('outer', name), scale=-2)}")
    for pair in itertools.combinations(names, 2):
        if ("outer", *pair) in sums:
            parts.append(f"P[{', '.join(pair)}] = {total(('outer', *pair), scale=-1)}")
    size = max(
        (abs(v) for key, m in sums.items() if key[0] == 1.0 for v in m.values()), default=0.0
    )
    linear = [
        f"h[{name}] = {total((1.0, name), beside=size)}" for name in names if (1.0, name) in sums
    ]
    mean = f"mean P⁻¹h, {', '.join(linear)}" if linear else "mean 0"
    return f"Normal with precision P, {', '.join(parts)}, and {mean}"


def _times_functions(sums: dict[Any, dict[str, float]]) -> list[Message]:
    """The coefficient of each function of a scalar, times the function."""
    messages = []
    for function, parts in sums.items():
        for words, value in parts.items():
            bracketed = f"({function})" if " · " in function else function
            messages.append((value, f"{words} · {bracketed}" if words else function))
    return messages


def _joint_labels(block: GaussianBlock | TreeBlock, mine: list[Atom]) -> set[int]:
    """The labels along which the block has a full covariance."""
    return {atom.labels[axis] for atom in mine for axis in block.joint_axes[atom.site]}


def _on_the_diagonal(words: str, varies: bool) -> str:
    if varies:
        return f"diag({words})"
    return f"{words} I".lstrip()


def _added(messages: Iterable[Message], plus: float, beside: float = 0.0) -> str:
    """number + a·E[…] - b·E[…] …; what is only rounding beside the largest is left out."""
    messages = list(messages)
    number = plus + sum(value for value, text in messages if not text)
    parts = [(value, text) for value, text in messages if text]
    largest = max((abs(value) for value, _ in parts), default=0.0)
    largest = max(largest, beside)
    parts = [part for part in parts if abs(part[0]) > ROUNDING * largest]
    words: list[str] = []
    for value, text in parts:
        size = "" if abs(value) == 1 else f"{abs(value):.6g} "
        sign = ("- " if value < 0 else "+ ") if words or number else ("-" if value < 0 else "")
        words.append(f"{sign}{size}{text}")
    words = shortened(words, [text for _, text in parts])
    return " ".join([f"{number:.6g}", *words] if number or not parts else words)


class _Writer:
    """One term of E_q log p, read as a message to the block that owns the atoms ``mine``."""

    def __init__(
        self,
        term: ClosedTerm,
        mine: list[Atom],
        joint: ExpectedLogJoint,
        names: DataNames,
        predictors: PredictorNames,
        shared: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.term, self.names, self.shared = term, names, shared
        self.predictors = predictors
        self.others = [atom for atom in term.atoms if not any(atom is own for own in mine)]
        self.is_pair = len(mine) > 1 and mine[0].site == mine[1].site
        self.own = {label for atom in mine for label in atom.labels}
        self.plates = {number: name for name, number in joint.plate_labels.items()}
        self.number, self.words = term.coefficient, list[Named]()
        self.summed = term.atom_labels() - self.own
        self.varying = {label for atom in self.others for label in atom.labels}
        self.read: dict[int, str] = {
            atom.labels[-1]: atom.site for atom in term.atoms if atom.function == "indicator"
        }
        for atom in self.others:
            surrogate = self.predictors.surrogate(atom)
            if surrogate is not None:
                self.number *= surrogate[0]
        for group in connected(term):
            self._take(group, joint.sizes)

    def message(self) -> Message:
        summed = "".join(f"Σ_{self.plates[x]} " for x in sorted(self.summed) if x in self.plates)
        data = products(self.words)
        if self.is_pair and len(self.words) == len(data) == 2:
            first, second = data  # two elements of the same vector: the matrix is symmetric
            data = [f"({first} {second}ᵀ + {second} {first}ᵀ)"]
            self.number /= 2
        prior = f"prior({self.term.origin})"
        if not self.others and any(word.words == prior for word in self.words):
            data = [prior]  # whatever product of its parameters it is
        factors = [*self._expectations(), *data]
        if len(factors) == 1 and factors[0].startswith("(Σ"):
            factors = [factors[0][1:-1]]  # a sum that stands alone needs no brackets
        return self.number, summed + " · ".join(factors)

    def varies_along(self, labels: set[int]) -> bool:
        """Whether the message is another one for each element along the labels."""
        return bool(labels & self.varying)

    def _take(self, group: list[Constant | Selection], sizes: dict[int, int]) -> None:
        """Read a group of constants as a number, as the place an axis is read at, or as words."""
        kept = self.term.atom_labels()
        constants = tuple(o for o in group if isinstance(o, Constant))
        selections = tuple(o for o in group if isinstance(o, Selection))
        part = replace(self.term, coefficient=1.0, constants=constants, selections=selections)
        folded = fold_term(part, sizes)
        value = _one_number(folded)
        labels = {label for operand in folded.operands for label in operand_labels(operand)}
        inner = {label for operand in group for label in operand_labels(operand)} - kept
        if value is not None:
            self.number *= value
        elif len(group) == 1 and self._is_place(group[0]):
            self.varying |= labels
            self.summed |= inner
        else:
            self.varying |= labels
            scale = times_identity(folded.constants)
            if scale is not None:
                self.number *= scale * folded.coefficient
                self.words.append(Named("I", tuple(labels)))
            else:
                words = group_words(group, inner, self.names, self.term, self.plates)
                self.words.append(Named(words, tuple(labels)))

    def _is_place(self, operand: Constant | Selection) -> bool:
        """Whether it says at which element a site is read: of data, discrete latents, or a number."""
        if isinstance(operand, Selection):
            if operand.target in self.own:
                return False
            self.read[operand.target] = self.names.index(operand, self.term)
            return True
        position = position_of(operand)
        if position is not None and operand.labels[0] not in self.own:
            self.read[operand.labels[0]] = str(position)
            return True
        if not operand.selects:
            return False
        readers = [self.read[label] for label in operand.labels if label in self.read]
        targets = [label for label in operand.labels if label not in self.read]
        if not readers or len(targets) != 1:
            return False
        place = operand.words or ", ".join(readers)
        self.read[targets[0]] = place
        if targets[0] in self.own:
            self.words.append(Named(f"1[{place}]", operand.labels))
        return True

    def _expectations(self) -> list[str]:
        """One expectation a statistic; two plain atoms of a factor are a product's."""
        words = []
        for atom in sorted(self.others, key=lambda atom: atom.function != "indicator"):
            pair = [a for a in self.others if a.function == 1 == atom.function]
            factor = self.shared.get(atom.site, (atom.site,))
            together = [a for a in pair if a.site in factor]
            names = [self._name(a) for a in together]
            if len({a.site for a in together}) == 2:
                words.append(f"E[{names[0]} · {names[1]}]")
            elif len(names) == 2:
                second = f"{names[1]}ᵀ" if names[0] == names[1] else names[1]
                words.append(f"E[{names[0]} {second}]")
            else:
                words.append(self._expectation(atom))
        return list(dict.fromkeys(words))

    def _name(self, atom: Atom) -> str:
        """The site, and the element at which it is read."""
        places = [self.read.get(label, "·") for label in atom.labels]
        while places and places[-1] == "·":
            places.pop()
        site = atom.site
        if isinstance(site, Predictor):
            site = f"η{self.predictors.ending(site)}"
        return site + (f"[{', '.join(places)}]" if places else "")

    def _expectation(self, atom: Atom) -> str:
        if atom.function == "indicator":
            case = self.read[atom.labels[-1]]
            return f"q({atom.site})" if case == atom.site else f"q({atom.site} = {case})"
        surrogate = self.predictors.surrogate(atom)
        if surrogate is not None:
            return surrogate[1]
        name = self._name(atom)
        if atom.function == "log":
            return f"E[log {name}]"
        if atom.function == "log1m":
            return f"E[log(1 - {name})]"
        if atom.function == "log_determinant":
            return f"E[log|{name}|]"
        return f"E[{in_words(atom.function, name)}]"


def _one_number(folded: ClosedTerm) -> float | None:
    """The value of constants that vary along nothing."""
    if folded.selections or len(folded.constants) > 1:
        return None
    if not folded.constants:
        return folded.coefficient
    values = folded.constants[0].tensor * folded.coefficient
    first = float(values.flatten()[0])
    return first if bool((values == first).all()) else None
