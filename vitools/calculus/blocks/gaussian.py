"""Gaussian blocks: sites that share one normal factor, jointly along the axes that terms couple.

A term with two elements of one Gaussian (w_d w_e, from (Xw)²) couples the axis on which they
differ. The block then keeps a full covariance along that axis. With ``elementwise`` the factor
stays fully factorised and the elements are updated one after another: updating coupled scalars
all at once is not coordinate ascent and can diverge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal
from torch.nn.functional import pad

from vitools.calculus.algebra.atoms import Atom, Unsupported
from vitools.calculus.blocks.block import (
    DenseBlock,
    Resolved,
    batch_mask,
    describe,
    plate_names,
    stand_in,
    with_event,
)
from vitools.calculus.tracing.trace import TracedSite
from vitools.distributions.joint_normal import JointNormal
from vitools.errors import NotSupportedError, NumericalError
from vitools.families.family import Family, narrow
from vitools.families.moments import SiteMoments
from vitools.families.multivariate_normal import MultivariateNormalFamily


class GaussianBlock(DenseBlock):
    """η = (h, P): linear coefficients [batch, D] and precision [batch, D, D]."""

    def __init__(
        self,
        sites: Sequence[TracedSite],
        joint_axes: Mapping[str, Sequence[int]],
        elementwise: bool = False,
    ):
        super().__init__(sites)
        self.family: MultivariateNormalFamily = MultivariateNormalFamily()
        self.elementwise = elementwise
        self.joint_axes = {site.name: tuple(sorted(joint_axes[site.name])) for site in sites}
        self.shapes = {site.name: site.shape for site in sites}
        self.rest = {
            name: tuple(i for i in range(len(shape)) if i not in self.joint_axes[name])
            for name, shape in self.shapes.items()
        }
        batches = {tuple(self.shapes[n][i] for i in rest) for n, rest in self.rest.items()}
        if len(batches) != 1:
            raise NotSupportedError(f"sites {self.names} do not share the plates of a joint factor")
        (self.batch_shape,) = batches
        first = self.sites[0]
        self.batch_plates = tuple(plate_names(first)[i] for i in self.rest[first.name])
        self.kept = self._kept()
        if self.kept is not None and bool((self.kept == self.kept[..., :1]).all()):
            self.mask, self.kept = self.kept[..., 0], None  # whole members
        self.offsets: dict[str, tuple[int, int]] = {}
        start = 0
        for name in self.names:
            size = math.prod(self._joint_shape(name))
            self.offsets[name] = (start, start + size)
            start += size
        self.size = start
        self.mean = torch.empty(0)
        self.covariance = torch.empty(0)

    def _kept(self) -> Tensor | None:
        """Which elements the masks of the sites keep, [batch, D]."""
        if all(site.mask is None for site in self.sites):
            return None
        site, *others = self.sites
        mask = batch_mask(site, site.shape)
        if others or mask is None:
            raise NotSupportedError(f"sites {self.names}: a masked site cannot share a factor")
        order = (*self.rest[site.name], *self.joint_axes[site.name])
        return mask.permute(order).reshape((*self.batch_shape, -1))

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

    def statistics(self) -> Iterable[Any]:
        for i, name in enumerate(self.names):
            yield from (("x", name), ("square", name))
            yield from (("product", name, other) for other in self.names[i:])

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        shape = self.batch_shape
        for name in key[1:]:
            shape += self._joint_shape(name)
        return shape

    def component_shape(self, component: int) -> tuple[int, ...]:
        return (*self.batch_shape, *(self.size,) * (component + 1))

    def component(self, key: Any) -> int:
        return 0 if key[0] == "x" else 1

    def embed(self, key: Any, message: Tensor) -> Tensor:
        lead = message.shape[: message.dim() - len(self.statistic_shape(key))]
        sizes = [math.prod(self._joint_shape(name)) for name in key[1:]]
        full = message.reshape((*lead, *self.batch_shape, *sizes))
        rows = self._margins(key[1])
        if key[0] == "x":
            return pad(full, rows)
        if key[0] == "square":
            return torch.diag_embed(pad(full, rows))
        half = 0.5 * pad(full, self._margins(key[2]) + rows)
        return half + half.mT

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        rows = slice(*self.offsets[key[1]])
        if key[0] == "product":
            part = mean[..., rows, slice(*self.offsets[key[2]])]
            joint = self._joint_shape(key[1]) + self._joint_shape(key[2])
            return part.reshape((*part.shape[:-2], *joint))
        whole = mean if key[0] == "x" else mean.diagonal(dim1=-2, dim2=-1)
        part = whole[..., rows]
        return part.reshape((*part.shape[:-1], *self._joint_shape(key[1])))

    def _margins(self, name: str) -> list[int]:
        start, stop = self.offsets[name]
        return [start, self.size - stop]

    @property
    def adds_messages(self) -> bool:
        return not self.elementwise

    # ---- the update ------------------------------------------------------------------------

    def update(self, messages: dict[Any, Tensor]) -> None:
        natural = self.gathered(messages)
        if self.elementwise:
            natural = natural if self.kept is None else self._set_aside(natural)
            natural = self._element_by_element(*natural)
        self.restore(natural)

    def _element_by_element(self, linear: Tensor, quadratic: Tensor) -> tuple[Tensor, ...]:
        """m_i ← (h_i - Σ_{j≠i} P_ij m_j) / P_ii, one element after another."""
        mean, precision = self.mean, -2 * quadratic
        diagonal = precision.diagonal(dim1=-2, dim2=-1)
        for i, place in enumerate(torch.eye(self.size, dtype=torch.bool)):
            pull = (precision[..., i, :] * mean).sum(-1) - diagonal[..., i] * mean[..., i]
            value = (linear[..., i] - pull) / diagonal[..., i]
            mean = torch.where(place, value.unsqueeze(-1), mean)
        return diagonal * mean, -0.5 * diagonal

    def set_factor(self, natural: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """From (h, -P/2); elementwise, from the diagonal of it."""
        if self.elementwise and self.mask is not None:
            natural = stand_in(natural, self.mask.unsqueeze(-1), self.member_family)
        elif self.mask is not None:
            natural = stand_in(natural, self.mask, self.family)
        linear, quadratic = natural if self.kept is None else self._set_aside(natural)
        entropy_of_one = 0.5 * math.log(2 * math.pi * math.e)
        if self.elementwise:
            variance = -0.5 / quadratic
            self.mean = linear * variance
            self.covariance = torch.diag_embed(variance)
            self._entropies = (entropy_of_one + 0.5 * variance.log()).sum(-1)
        else:
            self.mean, self.covariance, log_root = self.family.mean_and_covariance(
                (linear, quadratic)
            )
            self._entropies = entropy_of_one * self.size - log_root
        if self.kept is not None:
            self._entropies = self._entropies - entropy_of_one * (~self.kept).sum(-1)
        self.natural = (linear, quadratic)
        outer = self.mean.unsqueeze(-1) * self.mean.unsqueeze(-2)
        return self.mean, self.covariance + outer

    def _set_aside(self, natural: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Elements that a mask removes, and nothing reads, stand apart as N(0, 1)."""
        assert self.kept is not None
        linear, quadratic = natural
        apart = torch.full((), -0.5, dtype=torch.float64)
        pairs = self.kept
        if quadratic.dim() > linear.dim():
            apart = apart * torch.eye(self.size, dtype=torch.float64)
            pairs = self.kept.unsqueeze(-1) & self.kept.unsqueeze(-2)
        return torch.where(self.kept, linear, 0.0), torch.where(pairs, quadratic, apart)

    def check(self) -> None:
        if self.elementwise:
            linear, diagonal = self.natural
            proper = self.family.proper((linear, torch.diag_embed(diagonal)))
        else:
            proper = self.family.proper(self.natural)
        if not bool(proper.all()):
            raise NumericalError(
                f"site {self.title!r}: the update's precision matrix is not positive definite; "
                "the prior may be improper or the elements collinear"
            )

    def check_determined(self) -> None:
        """Refuse a flat prior's factor whose precision is rounding in some direction.

        A Cholesky factorisation may pass there by luck. Its squared pivots at unit diagonal are 1 - R²
        of each element on those before it.
        """
        flat = [site.name for site in self.sites if site.distribution == "ImproperUniform"]
        if not flat or self.elementwise:
            return
        precision = -2 * self.natural[1]
        scale = precision.diagonal(dim1=-2, dim2=-1).rsqrt()
        root, info = torch.linalg.cholesky_ex(precision * scale.unsqueeze(-1) * scale.unsqueeze(-2))
        pivots = root.diagonal(dim1=-2, dim2=-1).square()
        rounding = 8 * self.size * torch.finfo(precision.dtype).eps
        if bool((info > 0).any()) or not bool((pivots > rounding).all()):
            raise NumericalError(
                f"flat prior of {', '.join(map(repr, flat))}: the data leave a direction of {self.title!r} undetermined, "
                "so the posterior is improper. Leave out what is collinear, or "
                "give a proper prior."
            )

    def turn(self, axes: Tensor) -> None:
        """The factor of Vᵀx, for V [D, D] with orthogonal columns."""
        linear, quadratic = self.natural
        back = axes / (axes**2).sum(0)  # V⁻ᵀ
        self.restore((linear @ back, back.mT @ quadratic @ back))

    def _location(self) -> Tensor:
        """The mean of the sites' values: of x - c, plus c; [batch, D]."""
        mean = self.mean
        for site in self.sites:
            if site.reference is not None:
                order = (*self.rest[site.name], *self.joint_axes[site.name])
                point = site.reference.permute(order).reshape((*self.batch_shape, -1))
                mean = mean + pad(point, self._margins(site.name))
        return mean

    def joint_distribution(self) -> Distribution:
        """A normal over the sites' values flattened and concatenated."""
        if not self.batch_shape:
            return MultivariateNormal(
                self._location(), covariance_matrix=self.covariance, validate_args=False
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
        mean[index] = self._location().reshape(rows, -1)
        blocks = self.covariance.expand(*self.batch_shape, self.size, self.size)
        blocks = blocks.reshape(rows, self.size, self.size)
        covariance[index.unsqueeze(-1), index.unsqueeze(-2)] = blocks
        return MultivariateNormal(mean, covariance_matrix=covariance, validate_args=False)

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return GaussianBlock(sites, self.joint_axes, self.elementwise)

    @property
    def member_family(self) -> Family:
        return self.family.of_elements if self.elementwise else self.family

    def starting_point(
        self, prior: Mapping[Any, Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        linear, quadratic = super().starting_point({}, generator)
        return linear, quadratic.diagonal(dim1=-2, dim2=-1) if self.elementwise else quadratic

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        mean = self.mean.clone()
        variance = self.covariance.diagonal(dim1=-2, dim2=-1).expand(mean.shape).clone()
        for name, (start, stop) in self.offsets.items():
            if name in given:
                order = (*self.rest[name], *self.joint_axes[name])
                spread = given[name].variance
                spread = narrow(given[name].mean) if spread is None else spread
                for target, value in ((mean, given[name].mean), (variance, spread)):
                    flat = value.permute(order).reshape((*self.batch_shape, stop - start))
                    target[..., start:stop] = flat
        self.restore(self.member_family.with_moments(mean, variance))

    def distribution(self, name: str) -> Distribution:
        site = next(site for site in self.sites if site.name == name)
        rows = slice(*self.offsets[name])
        mean, covariance = self._location()[..., rows], self.covariance[..., rows, rows]
        axes, rank = self.joint_axes[name], len(site.shape)
        if self.elementwise or not axes:
            variance = covariance.diagonal(dim1=-2, dim2=-1).expand(mean.shape)
            order = (*self.rest[name], *axes)
            layout = [site.shape[i] for i in order]
            back = [order.index(i) for i in range(rank)]
            loc, scale = (t.reshape(layout).permute(back) for t in (mean, variance.sqrt()))
            return with_event(
                Normal(loc, scale, validate_args=False), site, batch_mask(site, site.shape)
            )
        root = torch.linalg.cholesky(covariance)  # one for all members where they share it
        if axes == (rank - 1,) and self.kept is None:
            plain = MultivariateNormal(mean, scale_tril=root, validate_args=False)
            return with_event(plain, site, self.mask)
        kept = self.kept if self.mask is None else self.mask.unsqueeze(-1).expand(mean.shape)
        return JointNormal(mean, root, site.shape, axes, kept)
