"""Posteriors built to deceive, with their moments by quadrature.

Each is a density of one or two real numbers, given as a function of points ``[..., P]`` and known up
to a constant. The moments come from a product grid that is equally spaced in arsinh, so that spikes
of width 0.01 and tails of thousands are resolved at once; none of the package is used for them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.distributions import ImproperUniform
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

LogDensity = Callable[[Tensor], Tensor]


def normal(x: Tensor, mean: float | Tensor, sd: float | Tensor) -> Tensor:
    sd = torch.as_tensor(sd, dtype=x.dtype)
    return -0.5 * ((x - mean) / sd) ** 2 - sd.log() - 0.5 * math.log(2 * math.pi)


def mixture(*parts: tuple[float, float, float]) -> LogDensity:
    """Of normals in one dimension, ``(share, mean, sd)`` each."""
    return lambda u: torch.logsumexp(
        torch.stack([math.log(w) + normal(u[..., 0], m, s) for w, m, s in parts]), 0
    )


def mixture_2d(*parts: tuple[float, tuple[float, float], tuple[float, float], float]) -> LogDensity:
    """Of normals in the plane, ``(share, mean, sds, correlation)`` each."""

    def one(u: Tensor, mean: tuple[float, float], sds: tuple[float, float], rho: float) -> Tensor:
        a, b = ((u[..., i] - mean[i]) / sds[i] for i in (0, 1))
        quadratic = (a * a - 2 * rho * a * b + b * b) / (1 - rho * rho)
        return -0.5 * quadratic - math.log(sds[0] * sds[1]) - 0.5 * math.log(1 - rho * rho)

    return lambda u: torch.logsumexp(
        torch.stack([math.log(w) + one(u, m, s, r) for w, m, s, r in parts]), 0
    )


def student(degrees: float) -> LogDensity:
    return lambda u: -(degrees + u.shape[-1]) / 2 * torch.log1p(u.square().sum(-1) / degrees)


def square(sd: float) -> LogDensity:
    """y = t² + noise at y = 4, t ~ N(0, 2)."""
    return lambda u: normal(u[..., 0], 0.0, 2.0) + normal(u[..., 0] ** 2, 4.0, sd)


def cauchy_data(u: Tensor) -> Tensor:
    data = (-5.2, -4.9, -4.7, 4.8, 5.0, 5.1, 5.3)
    x = u[..., 0]
    return normal(x, 0.0, 10.0) - sum(torch.log1p(((x - y) / 0.5) ** 2) for y in data)


def labels(u: Tensor) -> Tensor:
    """Means of two equal clusters."""
    data = [-2.4, -2.1, -1.9, -1.6, 1.5, 1.8, 2.0, 2.2, 2.5]
    prior = normal(u, 0.0, 5.0).sum(-1)
    return prior + sum(
        torch.logaddexp(normal(u[..., 0], y, 0.5), normal(u[..., 1], y, 0.5)) for y in data
    )


def banana(u: Tensor) -> Tensor:
    return normal(u[..., 0], 0.0, 2.0) + normal(u[..., 1], u[..., 0] ** 2 - 4.0, 0.7)


def funnel(u: Tensor) -> Tensor:
    return normal(u[..., 0], 0.0, 1.5) + normal(u[..., 1], 0.0, u[..., 0].exp())


def product(u: Tensor) -> Tensor:
    return normal(u, 0.0, 1.5).sum(-1) + normal(u[..., 0] * u[..., 1], 1.5, 0.2)


def ring(u: Tensor) -> Tensor:
    return normal(u.norm(dim=-1), 4.0, 0.4)


def spike_and_slab(u: Tensor) -> Tensor:
    """Two nearly collinear coefficients, one of which will do."""
    prior = torch.logaddexp(
        math.log(0.5) + normal(u, 0.0, 0.05), math.log(0.5) + normal(u, 0.0, 2.0)
    )
    return prior.sum(-1) + normal(u.sum(-1), 1.5, 0.15)


def school(u: Tensor) -> Tensor:
    """One centred effect with a half-Cauchy scale, on the log scale."""
    log_tau, theta = u[..., 0], u[..., 1]
    prior = log_tau - torch.log1p((2 * log_tau).exp()) + normal(theta, 0.0, log_tau.exp())
    return prior + normal(theta, 0.5, 1.0) - 0.02 * log_tau**2


@dataclass(frozen=True)
class Target:
    log_density: LogDensity
    size: int = 1
    kind: str = "several modes"

    def __call__(self) -> None:
        """The density as a Pyro model."""
        shape = torch.Size((self.size,))
        u = pyro.sample("u", ImproperUniform(constraints.real_vector, torch.Size(), shape))
        pyro.factor("target", self.log_density(u))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Means and sds ``[P]``."""
        count = 400_001 if self.size == 1 else 1601
        reach = math.asinh(1e6) if self.size == 1 else math.asinh(1e5)
        s = torch.linspace(-reach, reach, count, dtype=torch.float64)
        axis, log_width = 0.01 * s.sinh(), s.cosh().log()
        if self.size == 1:
            points, log_cells = axis.unsqueeze(-1), log_width
        else:
            points = torch.cartesian_prod(axis, axis)
            log_cells = (log_width[:, None] + log_width).flatten()
        found = torch.cat([self.log_density(part) for part in points.split(500_000)])
        log_mass = found.nan_to_num(nan=-math.inf, posinf=-math.inf) + log_cells  # e^u overflows
        mass = (log_mass - log_mass.logsumexp(0)).exp().unsqueeze(-1)
        mean = (mass * points).sum(0)
        return mean, (mass * (points - mean) ** 2).sum(0).sqrt()


SHAPE, GOOD = "one mode, odd shape", "benign"
TARGETS: dict[str, Target] = {
    "tenth, 9 sd away": Target(mixture((0.9, 0, 1), (0.1, 9, 1))),
    "quarter, 20 sd away": Target(mixture((0.75, 0, 1), (0.25, 20, 1))),
    "two equal modes": Target(mixture((0.5, -6, 1), (0.5, 6, 1))),
    "narrow twentieth": Target(mixture((0.95, 0, 1), (0.05, 12, 0.1))),
    "wide third, far": Target(mixture((0.67, 0, 0.3), (0.33, 15, 3))),
    "three modes": Target(mixture((0.6, 0, 1), (0.25, 8, 0.5), (0.15, -10, 2))),
    "comb of five": Target(mixture(*((0.2, 5.0 * k, 0.4) for k in range(-2, 3)))),
    "square, noise 1": Target(square(1.0)),
    "square, noise .2": Target(square(0.2)),
    "two camps, Cauchy": Target(cauchy_data),
    "labels": Target(labels, 2),
    "two far modes": Target(
        mixture_2d((0.5, (2.1, -2.3), (0.3, 0.3), 0), (0.5, (-2.3, 2.1), (0.3, 0.3), 0)), 2
    ),
    "modes of two widths": Target(
        mixture_2d((0.7, (0, 0), (0.2, 0.2), 0.3), (0.3, (8, 8), (2, 2), -0.5)), 2
    ),
    "four corners": Target(
        mixture_2d(*((0.25, (a, b), (0.7, 0.7), 0.0) for a in (-5, 5) for b in (-5, 5))), 2
    ),
    "product": Target(product, 2),
    "spike and slab, two": Target(spike_and_slab, 2),
    "narrow in wide": Target(mixture((0.8, 0, 0.1), (0.2, 0, 5)), 1, SHAPE),
    "spike in slab": Target(mixture((0.5, 0, 0.01), (0.5, 0, 1)), 1, SHAPE),
    "shoulder": Target(mixture((0.85, 0, 1), (0.15, 4, 2)), 1, SHAPE),
    "t of 3": Target(student(3.0), 1, SHAPE),
    "t of 2.5": Target(student(2.5), 1, SHAPE),
    "t of 4, plane": Target(student(4.0), 2, SHAPE),
    "log gamma .3": Target(lambda u: 0.3 * u[..., 0] - u[..., 0].exp(), 1, SHAPE),
    "quartic": Target(lambda u: -(u[..., 0] ** 4), 1, SHAPE),
    "banana": Target(banana, 2, SHAPE),
    "funnel": Target(funnel, 2, SHAPE),
    "school": Target(school, 2, SHAPE),
    "ring": Target(ring, 2, SHAPE),
    "cross": Target(
        mixture_2d((0.5, (0, 0), (2, 2), 0.98), (0.5, (0, 0), (2, 2), -0.98)), 2, SHAPE
    ),
    "normal": Target(mixture((1.0, 3, 0.2)), 1, GOOD),
    "logistic": Target(lambda u: logsigmoid(u[..., 0]) + logsigmoid(-u[..., 0]), 1, GOOD),
    "correlated": Target(mixture_2d((1.0, (1, -2), (1, 3), 0.9)), 2, GOOD),
    "log gamma 20": Target(lambda u: 20 * u[..., 0] - u[..., 0].exp(), 1, GOOD),
    "slightly skewed plane": Target(
        lambda u: 8 * u.sum(-1) - u.exp().sum(-1) - 0.5 * (u[..., 0] - u[..., 1]) ** 2, 2, GOOD
    ),
}
