"""q(z) q(w | z): discrete sites and one Gaussian site whose dependence on them is kept.

Where z selects the prior of w (a spike and a slab, a switch, a gate), factors q(z) q(w) hold each
other where they begin: E[1/var] under q(z) is that of the spike almost whatever q(z) is. Here w has a
normal of its own in each case of z, which is exact where the elements of the sites are independent
given the rest (:mod:`vitools.families.gated_normal`).

A term with two elements w_d w_e (the weights of a regression) ties elements along an axis. These are
then kept independent of each other and updated one after another: given all others, the pair
(z_d, w_d) has its optimum in closed form (Titsias and Lázaro-Gredilla 2011, "Spike and slab variational
inference for multi-task and multiple kernel learning").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from vitools.calculus.algebra.atoms import Atom, Unsupported
from vitools.calculus.blocks.block import DenseBlock, Resolved, describe, plate_names, with_event
from vitools.calculus.blocks.single import discrete_batch
from vitools.calculus.tracing.trace import TracedSite
from vitools.distributions.mixture import NormalMixture
from vitools.families.categorical import CategoricalFamily
from vitools.families.gated_normal import GatedNormalFamily
from vitools.families.moments import SiteMoments

Subset = tuple[str, ...]
"""Some of the discrete sites, in the order of the block."""


class GateBlock(DenseBlock):
    """η = (a, h, q) of each case, [batch, K]; cases in the order of the discrete sites, the last fastest.

    Args:
        sites: discrete ones and one Gaussian, all of one shape.
        tied: the axes along which terms hold two elements of the Gaussian one.

    Statistics are ("case", Z), ("x", Z), ("square", Z), Z some of the discrete sites, and
    ("pair", Z, Z'): E 1[z_d] w_d 1[z'_e] w_e.
    """

    def __init__(self, sites: Sequence[TracedSite], tied: Sequence[int]):
        super().__init__(sites)
        self.family: GatedNormalFamily = GatedNormalFamily()
        self.selectors = tuple(s for s in sites if s.support_size)
        (self.gated,) = (s for s in sites if not s.support_size)
        self.batch_shape = tuple(discrete_batch(self.selectors))
        plates = plate_names(self.gated)
        if any(site.mask is not None for site in sites):
            raise Unsupported("a masked site cannot share a factor")
        named = plate_names(self.selectors[0])[: len(self.batch_shape)]
        if tuple(self.gated.shape) != self.batch_shape or plates != named:
            raise Unsupported(
                "discrete sites and a Gaussian one share a factor where each element of the one "
                "has its own element of the others: of the same plates, without axes beside them"
            )
        self.tied = tuple(sorted(tied))
        self.rest = tuple(i for i in range(len(self.batch_shape)) if i not in self.tied)
        self.batch_plates = tuple(None if i in self.tied else p for i, p in enumerate(plates))
        self.supports = {s.name: s.support_size for s in self.selectors}
        self.cases = math.prod(self.supports.values())
        self.joint_axes = {s.name: () for s in self.selectors} | {self.gated.name: self.tied}
        self.shapes = {site.name: site.shape for site in sites}
        self.mean = torch.empty(0)
        self._lengths = tuple(self.batch_shape[i] for i in self.tied)
        self._others = tuple(self.batch_shape[i] for i in self.rest)
        self._keys: dict[Any, None] = {}

    # ---- statistics ----------------------------------------------------------------------

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        own = [atom for atom in atoms if atom.site == self.gated.name]
        degree = 0.0
        for atom in own:
            if isinstance(atom.function, str) or atom.function not in (1.0, 2.0):
                raise Unsupported(f"{describe(atom)}, where a Normal site offers only x and x²")
            degree += atom.function
        if degree > 2:
            product = " · ".join(describe(atom) for atom in own)
            raise Unsupported(f"{product}: only first and second powers of a Normal site have one")
        cases = [atom for atom in atoms if atom.site != self.gated.name]
        if len(own) < 2 or own[0].labels == own[1].labels:
            batch = own[0].labels if own else cases[0].labels[: len(self.batch_shape)]
            names, labels = self._cases(cases, batch)
            if len(names) < len(cases):
                raise Unsupported("different elements of sites that share a factor")
            kind = ("case", "x", "square")[int(degree)]
            key: Any = (kind, names)
            return self._known(Resolved(key, (*batch, *labels)))
        first, second = own[0].labels, own[1].labels
        if any(first[i] != second[i] for i in self.rest):
            raise Unsupported("different elements of sites that share a factor")
        here, labels = self._cases(cases, first)
        there, others = self._cases(cases, second)
        if len(here) + len(there) < len(cases):
            raise Unsupported("different elements of sites that share a factor")
        apart = tuple(second[i] for i in self.tied)
        return self._known(Resolved(("pair", here, there), (*first, *labels, *apart, *others)))

    def _cases(self, atoms: Sequence[Atom], batch: Sequence[int]) -> tuple[Subset, tuple[int, ...]]:
        """The discrete sites of which an atom stands at this element, and the labels of their cases."""
        found: dict[str, int] = {}
        for atom in atoms:
            if atom.function != "indicator":
                raise Unsupported(f"{describe(atom)} of a discrete site")
            if tuple(atom.labels[:-1]) == tuple(batch):
                if atom.site in found:
                    raise Unsupported(f"two cases of one element of {atom.site!r}")
                found[atom.site] = atom.labels[-1]
        names = tuple(name for name in self.supports if name in found)
        return names, tuple(found[name] for name in names)

    def _known(self, resolved: Resolved) -> Resolved:
        self._keys[resolved.key] = None
        return resolved

    def statistics(self) -> Iterable[Any]:
        return self._keys

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        sizes = [tuple(self.supports[name] for name in names) for names in key[1:]]
        if key[0] == "pair":
            return (*self.batch_shape, *sizes[0], *self._lengths, *sizes[1])
        return (*self.batch_shape, *sizes[0])

    def component(self, key: Any) -> int:
        return ("case", "x", "square", "pair").index(key[0])

    def component_shape(self, component: int) -> tuple[int, ...]:
        if component < 3:
            return (*self.batch_shape, self.cases)
        count = math.prod(self._lengths)
        return (*self._others, count, self.cases, count, self.cases)

    def embed(self, key: Any, message: Tensor) -> Tensor:
        """A coefficient about some of the discrete sites spread over all their cases."""
        shape = self.statistic_shape(key)
        lead = tuple(message.shape[: message.dim() - len(shape)])
        if key[0] != "pair":
            return self._spread_out(message, (*lead, *self.batch_shape), key[1]).flatten(
                -self._many
            )
        start = (*lead, *self.batch_shape)
        part = message.reshape((*start, *self._view(key[1]), *self._lengths, *self._view(key[2])))
        every = tuple(self.supports.values())
        whole = part.expand((*start, *every, *self._lengths, *every))
        order, n = list(range(len(lead))), len(lead)
        order += [n + i for i in (*self.rest, *self.tied)]
        order += range(n + len(self.batch_shape), whole.dim())
        return whole.permute(order).reshape((*lead, *self.component_shape(3)))

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        every = tuple(self.supports.values())
        many = self._many
        if key[0] != "pair":
            table = mean.unflatten(-1, every)
            away = [i - many for i, name in enumerate(self.supports) if name not in key[1]]
            return table.sum(away) if away else table
        lead = tuple(mean.shape[: mean.dim() - len(self.component_shape(3))])
        sizes = (*self._others, *self._lengths, *every, *self._lengths, *every)
        table = mean.reshape((*lead, *sizes))
        n = len(lead)
        first, second = n + len(self.batch_shape), table.dim() - many
        away = [first + i for i, name in enumerate(self.supports) if name not in key[1]]
        away += [second + i for i, name in enumerate(self.supports) if name not in key[2]]
        table = table.sum(away) if away else table
        placed = (*self.rest, *self.tied)
        order = [*range(n), *(n + placed.index(i) for i in range(len(placed)))]
        return table.permute(*order, *range(len(order), table.dim()))

    @property
    def _many(self) -> int:
        return len(self.supports)

    def _view(self, names: Subset) -> tuple[int, ...]:
        return tuple(size if name in names else 1 for name, size in self.supports.items())

    def _spread_out(self, message: Tensor, start: tuple[int, ...], names: Subset) -> Tensor:
        part = message.reshape((*start, *self._view(names)))
        return part.expand((*start, *self.supports.values()))

    @property
    def adds_messages(self) -> bool:
        return not self.tied

    # ---- the update ------------------------------------------------------------------------

    def gathered(self, messages: Mapping[Any, Tensor]) -> tuple[Tensor, ...]:
        """The natural parameters, those of tied elements one after another given the others."""
        said = self._sums(messages)
        zeros = torch.zeros(self.component_shape(0), dtype=torch.float64)
        natural = tuple(zeros + said.get(i, zeros) for i in range(3))
        return self._one_after_another(natural, said[3]) if 3 in said else natural

    def _one_after_another(self, natural: tuple[Tensor, ...], pairs: Tensor) -> tuple[Tensor, ...]:
        """h_d ← h_d + Σ_{e≠d} (Q_de + Q_ed) E w_e and q_d ← q_d + Q_dd, cases of z and all."""
        count = math.prod(self._lengths)
        coupling = pairs + pairs.movedim((-2, -1), (-4, -3))
        own = torch.diagonal(torch.diagonal(pairs, dim1=-4, dim2=-2), dim1=-3, dim2=-2)
        case, linear, square = (self._in_a_row(part) for part in natural)
        square = square + own
        mean = self._in_a_row(self.mean)
        for i, place in enumerate(torch.eye(count).bool().unsqueeze(-1)):
            known = torch.where(place, 0.0, mean)
            pull = torch.einsum("...kel,...el->...k", coupling[..., i, :, :, :], known)
            here = linear[..., i, :] + pull
            linear = torch.where(place, here.unsqueeze(-2), linear)
            _, own_mean, _ = self.family.mean_parameters((case[..., i, :], here, square[..., i, :]))
            mean = torch.where(place, own_mean.unsqueeze(-2), mean)
        return tuple(self._in_place(part) for part in (case, linear, square))

    def _in_a_row(self, part: Tensor) -> Tensor:
        """[batch, K] with the tied axes as one: [others, elements, K]."""
        order = (*self.rest, *self.tied, len(self.batch_shape))
        return part.permute(order).flatten(len(self.rest), -2)

    def _in_place(self, part: Tensor) -> Tensor:
        placed = (*self.rest, *self.tied)
        back = [placed.index(i) for i in range(len(placed))]
        whole = part.unflatten(len(self.rest), self._lengths)
        return whole.permute(*back, len(placed))

    def set_factor(self, natural: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mean = super().set_factor(natural)
        self.mean = mean[1]
        if not self.tied:
            return mean
        first, second = self._in_a_row(mean[1]), self._in_a_row(mean[2])
        count = first.shape[-2]
        both = first[..., :, :, None, None] * first[..., None, None, :, :]
        squares = torch.diag_embed(second).unsqueeze(-2)
        same = torch.eye(count).bool()[:, None, :, None]
        return *mean, torch.where(same, squares, both)

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return GateBlock(sites, self.tied)

    def starting_point(
        self, prior: Mapping[Any, Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        return super().starting_point({k: x for k, x in prior.items() if k[0] != "pair"}, generator)

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        chances, (_, linear, square) = self.family.mean_parameters(self.natural)[0], self.natural
        log_table = torch.zeros(self.component_shape(0), dtype=torch.float64)
        for name in self.supports:
            table = given[name].mean if name in given else self.extract(("case", (name,)), chances)
            (logits,) = CategoricalFamily().with_moments(table, None)
            log_table = log_table + self.embed(("case", (name,)), logits)
        chances = torch.softmax(log_table, -1)
        name = self.gated.name
        if name in given:
            moments = given[name]
            self.restore(self.family.placed(chances, moments.mean, moments.variance))
        else:
            normaliser = self.family.logits((torch.zeros_like(linear), linear, square))
            self.restore((chances.log() - normaliser, linear, square))

    # ---- distributions ---------------------------------------------------------------------

    def factors(self) -> dict[str | Subset, Distribution]:
        """The table of the discrete sites, and the mixture that the Gaussian one has for itself.

        Draws of a posterior hold the latter alone: discrete sites are summed out given these.
        """
        name: str | Subset = tuple(self.supports) if self._many > 1 else next(iter(self.supports))
        table: Distribution = Categorical(
            logits=self.family.logits(self.natural), validate_args=False
        )
        if isinstance(name, str):
            table = self.distribution(name)
        return {name: table, self.gated.name: self.distribution(self.gated.name)}

    def distribution(self, name: str) -> Distribution:
        if name == self.gated.name:
            natural = tuple(part.contiguous() for part in self.natural)
            made = self.family.to_distribution(natural)
            if self.gated.reference is not None:
                loc = made.loc + self.gated.reference.unsqueeze(-1)
                made = NormalMixture(made.logits, loc, made.scale)
            return with_event(made, self.gated)
        site = next(site for site in self.selectors if site.name == name)
        (chances, _, _) = self.family.mean_parameters(self.natural)
        logits = self.extract(("case", (name,)), chances).clamp(min=1e-300).log()
        return with_event(CategoricalFamily().like(site.distribution, (logits,)), site)
