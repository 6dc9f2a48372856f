r"""A linear Gaussian state over time, as one distribution of the whole trajectory.

x_0 ~ N(m_0, S_0 S_0ᵀ),        x_t = F_t x_t-1 + c_t + S_t ε_t,        ε_t ~ N(0, 1)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vitools.elimination.scan import affine_states
from vitools.errors import OptionError

Form = TypeVar("Form")

OWN_DIMS = {
    "initial_scale": 1,
    "initial_scale_tril": 2,
    "transition_scale": 1,
    "transition_scale_tril": 2,
    "transition_matrix": 2,
    "transition_offset": 1,
}
"""Dims of a parameter at one time."""

CONSTRAINTS = {
    "initial_loc": constraints.real_vector,
    "initial_scale": constraints.independent(constraints.positive, 1),
    "initial_scale_tril": constraints.lower_cholesky,
    "transition_scale": constraints.independent(constraints.positive, 2),
    "transition_scale_tril": constraints.independent(constraints.lower_cholesky, 1),
    "transition_matrix": constraints.independent(constraints.real, 3),
    "transition_offset": constraints.independent(constraints.real, 2),
}


class GaussianMarkovChain(TorchDistribution):
    """x_0, …, x_T-1 of a linear Gaussian state, of event shape [T, d].

    Parameters of the transitions broadcast to a dim of T - 1 transitions before their own: a matrix
    [d, d] holds for all of them, one of [T - 1, d, d] changes with time, and one for each of G chains is
    [G, 1, d, d] or [G, T - 1, d, d]; scales and offsets likewise. Draws and densities take log₂ T batched steps.

    >>> walk = GaussianMarkovChain(torch.zeros(1), torch.ones(1), torch.full((1,), 0.1), num_steps=500)
    >>> walk.event_shape, walk.rsample().shape
    (torch.Size([500, 1]), torch.Size([500, 1]))

    Args:
        initial_loc: m_0, [*batch, d].
        initial_scale: standard deviations of x_0, [*batch, d]; or ``initial_scale_tril`` [*batch, d, d].
        transition_scale: standard deviations of the noise, [*batch, T - 1, d]; or
            ``transition_scale_tril`` [*batch, T - 1, d, d].
        transition_matrix: F, [*batch, T - 1, d, d]; the identity if omitted (a random walk).
        transition_offset: c, such as the effect of a control input, [*batch, T - 1, d]; 0 if omitted.
        num_steps: T; may be omitted where a parameter says it.
    """

    arg_constraints = CONSTRAINTS
    has_rsample = True

    def __init__(
        self,
        initial_loc: Tensor,
        initial_scale: Tensor | float | None = None,
        transition_scale: Tensor | float | None = None,
        transition_matrix: Tensor | None = None,
        transition_offset: Tensor | float | None = None,
        num_steps: int | None = None,
        *,
        initial_scale_tril: Tensor | None = None,
        transition_scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        title = "GaussianMarkovChain"
        said = {
            **one_of(
                title, {"initial_scale": initial_scale, "initial_scale_tril": initial_scale_tril}
            ),
            **one_of(
                title,
                {
                    "transition_scale": transition_scale,
                    "transition_scale_tril": transition_scale_tril,
                },
            ),
            "transition_matrix": transition_matrix,
            "transition_offset": transition_offset,
        }
        if initial_loc.dim() == 0:
            raise OptionError(
                "GaussianMarkovChain: initial_loc is a number, and expected are the d numbers of a "
                "state. Write loc.unsqueeze(-1) for d = 1"
            )
        tensors = [initial_loc, *(x for x in said.values() if isinstance(x, Tensor))]
        dtype = functools.reduce(torch.promote_types, (x.dtype for x in tensors))
        initial_loc = initial_loc.to(dtype)
        given = {n: torch.as_tensor(x, dtype=dtype) for n, x in said.items() if x is not None}
        size = initial_loc.shape[-1]
        steps = num_transitions(title, given, OWN_DIMS, num_steps)
        shapes = [initial_loc.shape[:-1]]
        for name, x in given.items():
            own = OWN_DIMS[name] + name.startswith("transition")
            shapes.append(x.shape[: max(x.dim() - own, 0)])
        batch = torch.broadcast_shapes(*shapes)
        self.initial_loc = initial_loc.expand(*batch, size)
        for name, x in given.items():
            time = (steps,) if name.startswith("transition") else ()
            setattr(self, name, x.expand(*batch, *time, *(size,) * OWN_DIMS[name]))
        self._given = tuple(given)
        checked = ["initial_loc", *(n for n in given if steps or not n.startswith("transition"))]
        self.arg_constraints = {name: CONSTRAINTS[name] for name in checked}
        super().__init__(batch, torch.Size((steps + 1, size)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, 2)

    @property
    def num_steps(self) -> int:
        """T."""
        return self.event_shape[0]

    def expand(self, batch_shape: Any, _instance: Any = None) -> GaussianMarkovChain:
        new = self._get_checked_instance(GaussianMarkovChain, _instance)
        batch = torch.Size(batch_shape)
        rank = len(self.batch_shape)
        for name in ("initial_loc", *self._given):
            x = getattr(self, name)
            setattr(new, name, x.expand(batch + x.shape[rank:]))
        new._given, new.arg_constraints = self._given, self.arg_constraints
        super(GaussianMarkovChain, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _matrix(self) -> Tensor:
        size = self.event_shape[1]
        if "transition_matrix" in self._given:
            return self.transition_matrix
        one = torch.eye(size, dtype=self.initial_loc.dtype, device=self.initial_loc.device)
        return one.expand(*self.batch_shape, self.num_steps - 1, size, size)

    def _scaled(self, kind: str, noise: Tensor) -> Tensor:
        """S ε."""
        if kind in self._given:
            return getattr(self, kind) * noise
        root = getattr(self, f"{kind}_tril")
        return (root @ noise.unsqueeze(-1)).squeeze(-1)

    def _log_density(self, kind: str, error: Tensor) -> Tensor:
        """log N(error | 0, S Sᵀ) over the last dim."""
        if kind in self._given:
            scale = getattr(self, kind)
            whitened, log_scale = error / scale, scale.log().sum(-1)
        else:
            root = getattr(self, f"{kind}_tril")
            lead = torch.broadcast_shapes(error.shape[:-1], root.shape[:-2])
            error = error.expand(*lead, error.shape[-1]).unsqueeze(-1)
            root = root.expand(*lead, *root.shape[-2:])
            solved = torch.linalg.solve_triangular(root, error, upper=False)
            whitened = solved.squeeze(-1)
            log_scale = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * self.event_shape[1] * math.log(2 * math.pi)
        return -0.5 * whitened.square().sum(-1) - log_scale - constant

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        noise = torch.randn(shape, dtype=self.initial_loc.dtype, device=self.initial_loc.device)
        first = self.initial_loc + self._scaled("initial_scale", noise[..., 0, :])
        return affine_states(
            first,
            self._matrix(),
            self._shifted(self._scaled("transition_scale", noise[..., 1:, :])),
        )

    def _shifted(self, x: Tensor) -> Tensor:
        return x + self.transition_offset if "transition_offset" in self._given else x

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        before, after = value[..., :-1, :], value[..., 1:, :]
        if "transition_matrix" in self._given:
            before = (self.transition_matrix @ before.unsqueeze(-1)).squeeze(-1)
        first = self._log_density("initial_scale", value[..., 0, :] - self.initial_loc)
        later = self._log_density("transition_scale", after - self._shifted(before))
        return first + later.sum(-1)

    @property
    def mean(self) -> Tensor:
        zero = torch.zeros_like(self.initial_loc).unsqueeze(-2)
        steps, size = self.event_shape
        offset = self._shifted(zero.expand(*self.batch_shape, steps - 1, size))
        return affine_states(self.initial_loc, self._matrix(), offset)

    @property
    def variance(self) -> Tensor:
        """vec V_t = (F_t ⊗ F_t) vec V_t-1 + vec S_t S_tᵀ, of which the diagonal is taken."""
        size = self.event_shape[1]
        first, noise = (self._covariance(kind) for kind in ("initial_scale", "transition_scale"))
        matrix = self._matrix()
        twice = torch.einsum("...ab,...cd->...acbd", matrix, matrix).flatten(-2).flatten(-3, -2)
        states = affine_states(first.flatten(-2), twice, noise.flatten(-2))
        return states.reshape(*states.shape[:-1], size, size).diagonal(dim1=-2, dim2=-1)

    def _covariance(self, kind: str) -> Tensor:
        if kind in self._given:
            return torch.diag_embed(getattr(self, kind).square())
        root = getattr(self, f"{kind}_tril")
        return root @ root.mT


def num_transitions(
    title: str, given: dict[str, Tensor], own_dims: dict[str, int], num_steps: int | None
) -> int:
    """T - 1, from the parameters' dims of time or from what was asked for."""
    found: dict[str, int] = {}
    for name, x in given.items():
        if name.startswith("transition") and x.dim() > own_dims[name]:
            length = x.shape[-1 - own_dims[name]]
            if length != 1:
                found[name] = length
    if num_steps is not None:
        if num_steps < 1:
            raise OptionError(
                f"{title}: num_steps is {num_steps}, and a chain has at least one step"
            )
        found["num_steps"] = num_steps - 1
    if not found:
        raise OptionError(
            f"{title}: nothing says how many steps the chain has; give num_steps, or a parameter "
            "of the transitions with a dim of T - 1 of them"
        )
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} says {length + 1}" for name, length in found.items())
        raise OptionError(
            f"{title}: the numbers of steps differ: {said}. A parameter that changes with time has a "
            "dim of T - 1 before its own"
        )
    return next(iter(found.values()))


def one_of(title: str, given: Mapping[str, Form | None]) -> dict[str, Form]:
    """The one of several forms of a parameter that is given."""
    chosen = {name: x for name, x in given.items() if x is not None}
    if len(chosen) != 1:
        raise OptionError(
            f"{title}: expected one of {' and '.join(given)}, got "
            f"{'both' if chosen else 'neither'}. Give the parameter in one form"
        )
    return chosen
