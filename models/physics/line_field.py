r"""A field along a line, φ(x), seen with noise at points: five priors, all Markov chains.

    p(φ) ∝ exp(-1/(2 s²) ∫ (∂φ)² dx)     "straight": between data φ's mean is straight, with kinks at them
    p(φ) ∝ exp(-1/(2 s²) ∫ (∂²φ)² dx)    "spline": the mean is the cubic smoothing spline, λ = σ²/s²
    Matérn of smoothness 1/2, 3/2, 5/2   "matern12", …: of sd s, correlated over a length

These priors are tractable because what is to the left of x and what is to the right of it know each other
through φ(x) and a derivative or two alone: with that state they are linear Gaussian Markov chains,

    state_i+1 = F(h) state_i + s L(h) ε,        h = x_i+1 - x_i

so that a hundred thousand points take time linear in their number where kernels take its cube. F and L of
a Matérn are exp(A h) and the Cholesky factor of P - F P Fᵀ, P the covariance at rest (of short steps, of an
integral that does not lose its digits).

References: G. Wahba, "Improper priors, spline smoothing and the problem of guarding against model errors
in regression", JRSS B 40, 1978; J. Hartikainen, S. Särkkä, "Kalman filtering and smoothing solutions to
temporal Gaussian process regression models", MLSP 2010.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.distributions import GaussianMarkovChain
from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_column, spread_of

PRIORS = ("straight", "spline", "matern12", "matern32", "matern52")
FAR = 2.0
"""Steps, in units of 1/λ, over which a Matérn forgets enough for P - F P Fᵀ to keep its digits."""
FREE = 10.0
"""Sds of the data that a level which no roughness holds may start from its mean; slopes ten times as free."""


@dataclass(frozen=True)
class Steps:
    """Of a chain with s = 1: F [T - 1, d, d], L [T - 1, d, d], and L of the first state [d, d].

    ``level`` says how many of the first state's numbers (level, slope) the prior leaves free; their
    rows of ``initial`` are 1.
    """

    transition: Tensor
    scale_tril: Tensor
    initial: Tensor
    level: int


def steps(x: Tensor, prior: str, length: float | Tensor = 1.0) -> Steps:
    """The chain of a prior over increasing places x [T]; state: φ and its first derivatives.

    Args:
        x: places, [T], float64 to keep the digits of h³.
        prior: one of ``PRIORS``.
        length: of a Matérn; correlations at a distance of it are .37, .48, .52.
    """
    if prior not in PRIORS:
        raise OptionError(f"prior: expected one of {', '.join(PRIORS)}, got {prior!r}.")
    h = x.diff()
    if prior == "straight":
        one = torch.ones_like(h)[:, None, None]
        return Steps(one, h.sqrt()[:, None, None], torch.ones_like(x[:1, None]), 1)
    if prior == "spline":
        return Steps(
            _matrix([[1.0, h], [0.0, 1.0]], h),
            _matrix([[(h**3 / 3).sqrt(), 0.0], [math.sqrt(0.75) * h.sqrt(), h.sqrt() / 2]], h),
            torch.eye(2).to(x),
            2,
        )
    order = PRIORS.index(prior) - 1
    rate = math.sqrt(2 * order - 1) / torch.as_tensor(length, dtype=x.dtype)
    if order == 1:
        decay = torch.exp(-rate * h)
        return Steps(
            decay[:, None, None],
            (-torch.expm1(-2 * rate * h)).sqrt()[:, None, None],
            torch.ones_like(x[:1, None]),
            0,
        )
    drift, rest = _matern(order, rate)
    transition = torch.matrix_exp(drift * h[:, None, None])
    scale_tril = _near(order, rate, h)
    far = rate * h > FAR
    if bool(far.any()):
        left = rest - transition[far] @ rest @ transition[far].mT
        scale_tril = scale_tril.index_put((far,), torch.linalg.cholesky(left))
    return Steps(transition, scale_tril, torch.linalg.cholesky(rest), 0)


def _near(order: int, rate: Tensor, h: Tensor) -> Tensor:
    """L of a Matérn over steps short beside its length, [len(h), order, order].

    L Lᵀ = P - F P Fᵀ is h^(2 order - 1) at its least, which the difference loses to rounding; it is also
    q ∫₀ʰ v vᵀ ds with v(s) = e^(As) e_last, the derivatives of s^(order - 1) e^(-λs) / (order - 1)!, a sum of
    squares at Gauss's nodes, whose triangular factor is that of a QR.
    """
    nodes, weights = (torch.from_numpy(a).to(h) for a in np.polynomial.legendre.leggauss(16))
    s = h[:, None] * (nodes + 1) / 2
    u = rate * s
    if order == 2:
        columns, power = [s, 1 - u], 4 * rate**3
    else:
        columns, power = [s**2 / 2, s - s * u / 2, 1 - 2 * u + u**2 / 2], 16 / 3 * rate**5
    size = (power * h[:, None] * weights / 2).sqrt() * torch.exp(-u)
    upper = torch.linalg.qr(torch.stack([size * column for column in columns], -1)).R
    return (upper * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None]).mT


def _matrix(rows: list[list[Tensor | float]], h: Tensor) -> Tensor:
    """[len(h), d, d] from entries that depend on h or do not."""
    return torch.stack(
        [torch.stack([torch.as_tensor(x).to(h).expand_as(h) for x in row], -1) for row in rows], -2
    )


def _matern(order: int, rate: Tensor) -> tuple[Tensor, Tensor]:
    """A and P of (d/dx + λ)^order φ = white noise with Var φ = 1, [order, order]."""
    powers = [-math.comb(order, k) * rate ** (order - k) for k in range(order)]
    drift = torch.diag(torch.ones(order - 1), 1).to(rate)
    drift = torch.cat([drift[:-1], torch.stack(powers)[None]])
    if order == 2:
        return drift, torch.diag(torch.stack([rate**0, rate**2]))
    third = rate**2 / 3
    zero = torch.zeros_like(rate)
    rows = [[rate**0, zero, -third], [zero, third, zero], [-third, zero, rate**4]]
    return drift, torch.stack([torch.stack(row) for row in rows])


def usual_scale(prior: str, spread: Tensor, extent: Tensor) -> Tensor:
    """s of a field whose waves shorter than ``extent`` vary by ``spread``.

    The spectrum of a roughness is s²/ω² or s²/ω⁴, and 1/π ∫ of it above ω₀ = 2π / extent is s²/(π ω₀) or
    s²/(3π ω₀³).
    """
    wave = 2 * math.pi / extent
    if prior == "straight":
        return spread * (math.pi * wave).sqrt()
    return spread * (3 * math.pi * wave**3).sqrt() if prior == "spline" else spread


def model(
    x: Tensor,
    y: Tensor,
    mask: Tensor | bool = True,
    prior: str = "spline",
    length: float = 1.0,
    scale: float | None = None,
    noise: float | None = None,
) -> None:
    """Sites: ``scale`` (s), ``noise`` (σ) [] unless given, ``state`` [T, d], ``y`` in plate *places*.

    σ is half-Cauchy at the spread of y, s at ``usual_scale``. Levels and slopes that roughness leaves free start
    normal and wide (10 sds of y, 100 for the slope over all of x). Where there is no measurement ``mask`` is false: φ is found there too.

    Args:
        x: places in increasing order, [T].
        y: what was read, [T].
        mask: false where nothing was read, [T].
        prior: one of "straight", "spline", "matern12", "matern32", "matern52".
        length: of a Matérn.
        scale: s, where it is known.
        noise: σ, where it is known.
    """
    x, y = as_column("x", x).double(), as_column("y", y).double()
    if len(x) != len(y) or bool((x.diff() <= 0).any()):
        raise DataError(
            f"x: expected {len(y)} different places in increasing order, one for each y, got {len(x)}"
            f"{'' if len(x) != len(y) else ', not increasing. Sort the rows by x'}."
        )
    for name, value in (("length", length), ("scale", scale), ("noise", noise)):
        if value is not None and not value > 0:
            raise OptionError(f"{name}: expected a positive number, got {value}.")
    seen = y if mask is True else y[torch.as_tensor(mask)]
    spread, extent = spread_of("y", seen), x[-1] - x[0]
    chain = steps(x, prior, length)
    size = chain.transition.shape[-1]
    if scale is None:
        usual = usual_scale(prior, spread, extent)
        s = pyro.sample("scale", dist.HalfCauchy(usual))
    else:
        s = y.new_tensor(scale)
    sigma = pyro.sample("noise", dist.HalfCauchy(spread)) if noise is None else y.new_tensor(noise)
    start = torch.zeros(size).to(y)
    if chain.level:
        start[0] = seen.mean()
        powers = torch.arange(size).to(y)
        wide = spread * FREE ** (1 + powers) / extent**powers
        initial = torch.diag(wide)
    else:
        initial = s[..., None, None] * chain.initial
    state = pyro.sample(
        "state",
        GaussianMarkovChain(
            start,
            transition_matrix=chain.transition,
            initial_scale_tril=initial,
            transition_scale_tril=s[..., None, None, None] * chain.scale_tril,
        ),
    )
    with pyro.plate("places", len(y)), pyro.poutine.mask(mask=mask):
        pyro.sample("y", dist.Normal(state[..., 0], sigma), obs=y)


@dataclass(frozen=True)
class Line:
    """Places [T], readings [T] with a mask, and the field behind them [T]."""

    x: Tensor
    y: Tensor
    mask: Tensor
    field: Tensor


def simulate(num_places: int = 60, num_seen: int = 40, noise: float = 0.2, seed: int = 0) -> Line:
    """Two waves on [0, 1], read at some of the places."""
    if not 3 <= num_seen <= num_places:
        raise OptionError(f"num_seen: expected 3 to {num_places} (num_places), got {num_seen}.")
    if not noise > 0:
        raise OptionError(f"noise: expected a positive number, got {noise}.")
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 1, num_places, dtype=torch.float64)
    field = torch.sin(2 * math.pi * x) + 0.5 * torch.sin(6 * math.pi * x)
    seen = torch.randperm(num_places, generator=generator)[:num_seen]
    mask = torch.zeros(num_places, dtype=torch.bool).index_fill(0, seen, True)
    y = field + noise * torch.randn(num_places, generator=generator, dtype=torch.float64)
    return Line(x, torch.where(mask, y, 0.0), mask, field)


def example(seed: int) -> Example:
    """Forty readings of a curve, under the prior of splines."""
    data = simulate(seed=seed)
    return Example(
        model,
        (data.x, data.y, data.mask),
        "a curve at 60 places, read at 40 (simulated)",
        pictures=pictures,
        nested=("scale",),
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """The field along its line, with the band that holds 95 %, over what was read."""
    from vitools.models.physics.pictures import plot_line

    given = posterior.problem.arguments
    x, y = given["x"], given["y"]
    mask = given["mask"] if isinstance(given["mask"], Tensor) else torch.ones_like(y).bool()
    mean, sd = posterior.mean()["state"][:, 0], posterior.sd()["state"][:, 0]
    return {"field": plot_line(x, mean, sd, y, mask)}
