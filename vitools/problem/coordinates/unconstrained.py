"""The continuous latents of a problem as one vector on the whole real line.

NUTS, quadrature and Gaussian guides need one flat space; this is the only place that
knows how sites are laid out in it.
"""

import math
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from vitools.errors import ModelError
from vitools.problem.coordinates.density import Density
from vitools.problem.coordinates.singular import where_defined
from vitools.problem.problem import Problem
from vitools.supports import from_reals

FEW_DRAWS, MANY_DRAWS = 8, 1000


class UnconstrainedSpace:
    """θ = T(u), u ∈ ℝ^P, with log p(x, θ(u)) + log |∂θ/∂u|, discrete latents summed out.

    Attributes:
        size: P. A simplex of K entries takes K - 1 of them.
        slices: ``{site: slice of u}``.
        dtype: of u: the widest number type of the latents and of the model's factors. Whoever moves
            in the space takes log densities and gradients in it as numbers of one type; each site's
            own transform is computed in the site's type, whose bounds it knows.
    """

    def __init__(self, problem: Problem) -> None:
        problem.try_on_values()
        self.problem = problem
        self.transforms = {k: from_reals(s.support) for k, s in problem.continuous.items()}
        self.shapes = {
            k: torch.Size(t.inverse_shape(problem.latents[k].shape))
            for k, t in self.transforms.items()
        }
        self.slices: dict[str, slice] = {}
        start = 0
        for name, shape in self.shapes.items():
            self.slices[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        self.size = start
        sites = [problem.latents[k] for k in self.shapes]
        self.dtype = reduce(torch.promote_types, (site.dtype for site in sites), problem.dtype)
        self.device = sites[0].device if sites else torch.device("cpu")

    def to_values(self, vector: Tensor) -> dict[str, Tensor]:
        """``[*S, P]`` to ``{site: [*S, *site.shape]}``."""
        return {
            name: transform(self._part(vector, name)).to(self.problem.latents[name].dtype)
            for name, transform in self.transforms.items()
        }

    def _part(self, vector: Tensor, name: str) -> Tensor:
        """A site's part of ``[*S, P]``, in the site's shape and number type."""
        part = vector[..., self.slices[name]].reshape(vector.shape[:-1] + self.shapes[name])
        return part.to(self.problem.latents[name].dtype)

    def from_values(self, values: Mapping[str, Tensor]) -> Tensor:
        """The inverse of :meth:`to_values`; extra sites are ignored."""
        parts = []
        for name, transform in self.transforms.items():
            u = transform.inv(values[name]).to(self.dtype)
            parts.append(u.reshape(u.shape[: u.dim() - len(self.shapes[name])] + (-1,)))
        return torch.cat(parts, -1)

    def log_jacobian(self, vector: Tensor) -> Tensor:
        """log |∂θ/∂u|, ``[*S, P] -> [*S]``."""
        total = vector.new_zeros(vector.shape[:-1])
        for name, transform in self.transforms.items():
            u = self._part(vector, name)
            log_det = transform.log_abs_det_jacobian(u, transform(u))
            total = total + log_det.reshape(vector.shape[:-1] + (-1,)).sum(-1)
        return total

    def log_density_at(self, vector: Tensor) -> Tensor:
        """log density of one unconstrained point ``[P]``; differentiable and traceable."""
        self.problem.refuse_unlisted("a density over the reals")
        log_joint = self.problem.factors(self.to_values(vector)).log_density()
        return log_joint + self.log_jacobian(vector)

    def log_density(self, vector: Tensor) -> Tensor:
        """:meth:`log_density_at` over leading dims: ``[*S, P] -> [*S]``."""
        self.problem.refuse_unlisted("a density over the reals")
        return self.problem.log_joint(self.to_values(vector)) + self.log_jacobian(vector)

    def density(self, example: Tensor, num_points: int) -> Density:
        """:meth:`log_density_at` for about ``num_points`` points, with its derivatives."""
        return Density(self.log_density_at, example, self.problem, num_points)

    def initial_point(self, seed: int) -> Tensor:
        """A point of finite density: a draw from the prior, pulled in where that overflows.

        Many are tried where few values leave the data possible, as those above all of them.
        """
        for count in (FEW_DRAWS, MANY_DRAWS):
            draws = self.from_values(self.problem.starting_draws(count, seed))
            for shrink in (1.0, 0.5, 0.1, 0.0):
                candidates = (draws * shrink).clamp(-10.0, 10.0)
                (heights,) = where_defined(
                    lambda points: (self.log_density(points),),
                    lambda points: (torch.full_like(points[:, 0], -torch.inf),),
                    candidates,
                )
                good = torch.isfinite(heights)
                if bool(good.any()):
                    return candidates[int(good.nonzero()[0])]
        raise ModelError(
            f"model '{self.problem.name}': no start of finite density found among draws from the "
            "prior. Check that prior and likelihood agree on the supports of the data."
        )
