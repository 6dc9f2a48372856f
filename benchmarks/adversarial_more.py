"""Ten more posteriors to deceive with, for a judge whose rules stood before they were written.

Of the kinds of :mod:`adversarial_targets`, and with truth by the same quadrature: the shapes are others.
No rule or limit of the judge was touched after they had been looked at.
"""

import math

import torch
from adversarial_targets import GOOD, SHAPE, Target, mixture_2d, normal
from torch import Tensor
from torch.nn.functional import logsigmoid


def heavy_beside_narrow(u: Tensor) -> Tensor:
    """A Student t of 3, and a narrow mode in its tail."""
    x = u[..., 0]
    constant = math.lgamma(2.0) - math.lgamma(1.5) - 0.5 * math.log(3 * math.pi)
    wide = constant - 2 * torch.log1p(x**2 / 3)
    parts = [math.log(0.8) + wide, math.log(0.2) + normal(x, 14.0, 0.3)]
    return torch.logsumexp(torch.stack(parts), 0)  # logaddexp has no second derivative that far out


def tilted_wells(u: Tensor) -> Tensor:
    x = u[..., 0]
    return -0.5 * (x**2 - 4) ** 2 + 0.4 * x


def crescent(u: Tensor) -> Tensor:
    """A ring of which one side holds most of the mass."""
    angle = torch.atan2(u[..., 1], u[..., 0])
    return normal(u.norm(dim=-1), 3.0, 0.3) + 1.5 * angle.cos()


def two_tails(u: Tensor) -> Tensor:
    """A Student t of 3 to the right, a normal to the left."""
    x = u[..., 0]
    return torch.where(x > 0, -2 * torch.log1p(x.clamp(min=0) ** 2 / 3), -(x**2) / 2)


def shrunk(u: Tensor) -> Tensor:
    """One effect z λ under a half-Cauchy λ, on the log scale, that the datum 2 contradicts mildly."""
    z, log_scale = u[..., 0], u[..., 1].clamp(max=300.0)
    prior = normal(z, 0.0, 1.0) + log_scale - torch.logaddexp(torch.zeros_like(z), 2 * log_scale)
    return prior + normal(z * log_scale.clamp(max=30.0).exp(), 2.0, 0.7) - 0.01 * u[..., 1] ** 2


def corrugated(u: Tensor) -> Tensor:
    """A normal of sd 5 with bumps on it."""
    x = u[..., 0]
    return -(x**2) / 50 + 3 * (2 * x).cos()


def separated(u: Tensor) -> Tensor:
    """Logistic regression of two classes that a line parts, under a wide prior."""
    slope, level = u[..., 0], u[..., 1]
    total = normal(slope, 0.0, 10.0) + normal(level, 0.0, 10.0)
    for x, sign in ((-1.5, -1), (-0.7, -1), (-0.4, -1), (0.5, 1), (0.9, 1), (1.8, 1)):
        total = total + logsigmoid(sign * (slope * x + level))
    return total


MORE: dict[str, Target] = {
    "heavy beside narrow": Target(heavy_beside_narrow),
    "tilted wells": Target(tilted_wells),
    "three of three shapes": Target(
        mixture_2d(
            (0.55, (0, 0), (1.0, 0.2), 0.0),
            (0.3, (-6, 5), (0.5, 1.5), 0.7),
            (0.15, (7, 4), (0.3, 0.3), -0.4),
        ),
        2,
    ),
    "corrugated": Target(corrugated),
    "crescent": Target(crescent, 2, SHAPE),
    "two tails": Target(two_tails, 1, SHAPE),
    "shrunk effect": Target(shrunk, 2, SHAPE),
    "separated classes": Target(separated, 2, SHAPE),
    "log odds of 12 to 7": Target(
        lambda u: 12 * logsigmoid(u[..., 0]) + 7 * logsigmoid(-u[..., 0]), 1, GOOD
    ),
    "two log rates": Target(
        lambda u: (
            30 * u[..., 0]
            - u[..., 0].exp()
            + 18 * u[..., 1]
            - u[..., 1].exp()
            - 0.3 * (u[..., 0] - u[..., 1]) ** 2
        ),
        2,
        GOOD,
    ),
}
