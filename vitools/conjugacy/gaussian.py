"""Gaussian blocks: sites that share one normal factor, jointly along the axes that terms couple.

A term with two elements of one Gaussian (w_d w_e, from (Xw)²) couples the axis on which they
differ. The block then keeps a full covariance along that axis. With ``elementwise`` the factor
stays fully factorised and the elements are updated one after another: updating coupled scalars
all at once is not coordinate ascent and can diverge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vitools.conjugacy.blocks import Block, Resolved, describe, plate_names, with_event
from vitools.conjugacy.term import Atom, Unsupported
from vitools.conjugacy.trace import TracedSite
from vitools.errors import NotSupportedError, NumericalError
from vitools.families import FAMILIES
from vitools.families.joint_normal import JointNormal


class GaussianBlock(Block):
    """η = (h, P): linear coefficients [batch, D] and precision [batch, D, D]."""

    def __init__(
        self,
        sites: Sequence[TracedSite],
        joint_axes: Mapping[str, Sequence[int]],
        elementwise: bool = False,
    ):
        super().__init__(sites)
        self.elementwise = elementwise
        self.joint_axes = {site.name: tuple(sorted(joint_axes[site.name])) for site in sites}
        self.shapes = {site.name: site.shape for site in sites}
        self.rest = {
            name: tuple(i for i in range(len(shape)) if i not in self.joint_axes[name])
            for name, shape in self.shapes.items()
        }
        if any(site.mask is not None for site in sites):
            raise NotSupportedError(
                f"sites {self.names}: a masked Gaussian with coupled elements is not supported"
            )
        batches = {tuple(self.shapes[n][i] for i in rest) for n, rest in self.rest.items()}
        if len(batches) != 1:
            raise NotSupportedError(f"sites {self.names} do not share the plates of a joint factor")
        (self.batch_shape,) = batches
        first = self.sites[0]
        self.batch_plates = tuple(plate_names(first)[i] for i in self.rest[first.name])
        self.offsets: dict[str, tuple[int, int]] = {}
        start = 0
        for name in self.names:
            size = math.prod(self._joint_shape(name))
            self.offsets[name] = (start, start + size)
            start += size
        self.size = start
        self.mean = torch.empty(0)
        self.covariance = torch.empty(0)

    def _joint_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.shapes[name][i] for i in self.joint_axes[name])

    # ---- statistics ----------------------------------------------------------------------

    def _split(self, atom: Atom) -> tuple[tuple[int, ...], tuple[int, ...]]:
        labels = atom.labels
        rest = tuple(labels[i] for i in self.rest[atom.site])
        return rest, tuple(labels[i] for i in self.joint_axes[atom.site])

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        degree = 0.0
        for atom in atoms:
            if isinstance(atom.function, str) or atom.function not in (1.0, 2.0):
                raise Unsupported(f"{describe(atom)}, where a Normal site offers only x and x²")
            degree += atom.function
        if degree > 2:
            product = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"{product}: only first and second powers of a Normal site have one")
        if len(atoms) == 1:
            (atom,) = atoms
            rest, joint = self._split(atom)
            kind = "x" if atom.function == 1.0 else "square"
            return Resolved((kind, atom.site), (*rest, *joint))
        first, second = sorted(atoms, key=lambda a: self.names.index(a.site))
        rest, joint = self._split(first)
        other_rest, other_joint = self._split(second)
        if rest != other_rest:
            raise Unsupported(f"different elements of {self.names} along a plate kept independent")
        return Resolved(("product", first.site, second.site), (*rest, *joint, *other_joint))

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        shape = self.batch_shape
        for name in key[1:]:
            shape += self._joint_shape(name)
        return shape

    # ---- the update ------------------------------------------------------------------------

    def update(self, messages: dict[Any, Tensor]) -> None:
        linear = torch.zeros(*self.batch_shape, self.size, dtype=torch.float64)
        precision = torch.zeros(*self.batch_shape, self.size, self.size, dtype=torch.float64)
        for key, message in messages.items():
            sizes = [self.offsets[n][1] - self.offsets[n][0] for n in key[1:]]
            full = message.expand(self.statistic_shape(key)).reshape(*self.batch_shape, *sizes)
            rows = slice(*self.offsets[key[1]])
            if key[0] == "x":
                linear[..., rows] += full
            elif key[0] == "square":
                precision.diagonal(dim1=-2, dim2=-1)[..., rows] -= 2 * full
            else:
                columns = slice(*self.offsets[key[2]])
                precision[..., rows, columns] -= full
                precision[..., columns, rows] -= full.mT
        if self.elementwise:
            self._update_elements(linear, precision)
        else:
            self.restore((linear, -0.5 * precision))

    def _update_elements(self, linear: Tensor, precision: Tensor) -> None:
        """m_i ← (h_i - Σ_{j≠i} P_ij m_j) / P_ii, one element after another."""
        mean = self.mean.clone()
        diagonal = precision.diagonal(dim1=-2, dim2=-1)
        for i in range(self.size):
            pull = (precision[..., i, :] * mean).sum(-1) - diagonal[..., i] * mean[..., i]
            mean[..., i] = (linear[..., i] - pull) / diagonal[..., i]
        self.restore((diagonal * mean, -0.5 * diagonal))

    def restore(self, natural: tuple[Tensor, ...]) -> None:
        """From (h, -P/2); elementwise, from the diagonal of it."""
        linear, quadratic = natural
        if self.elementwise:
            if not bool((quadratic < 0).all()):
                raise self._improper()
            variance = -0.5 / quadratic
            self.mean = linear * variance
            self.covariance = torch.diag_embed(variance)
            self._entropies = 0.5 * (2 * math.pi * math.e * variance).log().sum(-1)
        else:
            root, info = torch.linalg.cholesky_ex(-2 * quadratic)
            if bool(info.any()):
                raise self._improper()
            self.covariance = torch.cholesky_inverse(root)
            self.mean = (self.covariance @ linear.unsqueeze(-1)).squeeze(-1)
            log_root = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            self._entropies = 0.5 * self.size * math.log(2 * math.pi * math.e) - log_root
        self.natural = natural
        self._set_moments()
        self.changed()

    def turn(self, axes: Tensor) -> None:
        """The factor of Vᵀx, for an orthogonal V [D, D]."""
        linear, quadratic = self.natural
        self.restore((linear @ axes, axes.mT @ quadratic @ axes))

    def _improper(self) -> NumericalError:
        return NumericalError(
            f"site {self.title!r}: the update's precision matrix is not positive definite; "
            "the prior may be improper or the elements collinear"
        )

    def _set_moments(self) -> None:
        second = self.covariance + self.mean.unsqueeze(-1) * self.mean.unsqueeze(-2)
        self.moments = {}
        for name in self.names:
            rows = slice(*self.offsets[name])
            layout = (*self.batch_shape, *self._joint_shape(name))
            self.moments[("x", name)] = self.mean[..., rows].reshape(layout)
            diagonal = second.diagonal(dim1=-2, dim2=-1)[..., rows]
            self.moments[("square", name)] = diagonal.reshape(layout)
            for other in self.names[self.names.index(name) :]:
                columns = slice(*self.offsets[other])
                pair = (*layout, *self._joint_shape(other))
                self.moments[("product", name, other)] = second[..., rows, columns].reshape(pair)

    def entropies(self) -> Tensor:
        return self._entropies

    def joint_distribution(self) -> Distribution:
        """A normal over the sites' values flattened and concatenated."""
        if not self.batch_shape:
            return MultivariateNormal(
                self.mean, covariance_matrix=self.covariance, validate_args=False
            )
        # Independent rows: place each row's block of the covariance at its flat positions.
        rows = math.prod(self.batch_shape)
        positions, start = [], 0
        for name in self.names:
            shape = self.shapes[name]
            flat = torch.arange(math.prod(shape)).reshape(shape)
            order = (*self.rest[name], *self.joint_axes[name])
            positions.append(start + flat.permute(order).reshape(rows, -1))
            start += math.prod(shape)
        index = torch.cat(positions, -1)
        mean = torch.zeros(start, dtype=torch.float64)
        covariance = torch.zeros(start, start, dtype=torch.float64)
        mean[index] = self.mean.reshape(rows, -1)
        blocks = self.covariance.reshape(rows, self.size, self.size)
        covariance[index.unsqueeze(-1), index.unsqueeze(-2)] = blocks
        return MultivariateNormal(mean, covariance_matrix=covariance, validate_args=False)

    def spread(self, axis: int, index: Tensor, sites: Sequence[TracedSite]) -> Block:
        full = GaussianBlock(sites, self.joint_axes, self.elementwise)
        full.restore(tuple(eta.index_select(axis, index) for eta in self.natural))
        return full

    def distribution(self, name: str) -> Distribution:
        site = next(site for site in self.sites if site.name == name)
        rows = slice(*self.offsets[name])
        mean, covariance = self.mean[..., rows], self.covariance[..., rows, rows]
        axes, rank = self.joint_axes[name], len(site.shape)
        if self.elementwise or not axes:
            variance = covariance.diagonal(dim1=-2, dim2=-1)
            order = (*self.rest[name], *axes)
            layout = [site.shape[i] for i in order]
            back = [order.index(i) for i in range(rank)]
            family = FAMILIES["Normal"]
            linear, quadratic = mean / variance, -0.5 / variance
            shaped = [t.reshape(layout).permute(back) for t in (linear, quadratic)]
            return with_event(family.to_distribution((shaped[0], shaped[1])), site)
        if axes == (rank - 1,):
            plain = MultivariateNormal(mean, covariance_matrix=covariance, validate_args=False)
            return with_event(plain, site)
        return JointNormal(mean, covariance, site.shape, axes)
