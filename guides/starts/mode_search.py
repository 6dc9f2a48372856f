"""A quick, deterministic search for a region of high posterior mass, for guides to start from.

    maximise over m, s   (1/S) Σ_i [log p(x, T(u_i)) + log |∂T/∂u|] + Σ log s,   u_i = m + s z_i

with the same few draws z_i ~ N(0, I) throughout (in pairs z, -z), so that L-BFGS applies. A bare
mode would not do: where a scale of the model may go to 0 the density is infinite there, and no
guide can start at such a point; the term Σ log s keeps the region from closing.

Where there are few enough numbers the curvature over the region is taken too,

    Λ = -(1/S) Σ_i ∇² log p(x, T(u_i)) |∂T/∂u|,   Σ = Λ⁻¹,

and with it a last descent along Σ's axes, for ridges on which one number at a time leads nowhere.

R. Giordano, M. Ingram, T. Broderick (2024), "Black box variational inference with a deterministic
objective", JMLR 25.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.errors import NumericalError
from vitools.guides.family import LatentSite
from vitools.isolation import seeded
from vitools.problem import Problem
from vitools.problem.coordinates.density import Density

_PAIRS = 8
_ROUNDS = 8
_GAIN = 1e-2  # of the bound, in nats a number, that ends the rounds
_FARTHEST = 5.0
_NUM_STEPS = 25  # of L-BFGS a round
_NARROW = 0.1  # the first spread, as a share of the prior's
_TRIES = 10
_MOST_FOR_CURVATURE = 200  # numbers; the work is their number times that of a gradient
_CURVATURE_POINTS = 1600
_STEP = 0.3  # of the difference quotients, in s
_FLATTEST = 1e-8  # eigenvalue of the curvature in units of s, whose diagonal is about 1
_POINTS = 3000  # at which the density is taken, about


@dataclass(frozen=True)
class Region:
    """Independent normals on the reals, site by site, and the density's curvature there.

    Attributes:
        location, scale: ``{site: unconstrained value}``.
        scale_tril: ``[D, D]``, a Cholesky factor of Σ, sites one after another; independent scales
            where Σ would be too large.
    """

    sites: Mapping[str, LatentSite]
    location: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]
    scale_tril: Tensor

    def sample(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        """``{site: [n, …]}`` on the sites' supports."""
        with seeded(seed):
            noise = {
                name: torch.randn((num_samples, *m.shape)).to(m)
                for name, m in self.location.items()
            }
        return {
            name: site.transform(self.location[name] + self.scale[name] * noise[name])
            for name, site in self.sites.items()
        }


def search(problem: Problem, sites: Mapping[str, LatentSite], seed: int) -> Region:
    """The region found by L-BFGS from the centre of the prior, or from a draw where that fails.

    Raises:
        NumericalError: the posterior density is 0, infinite or NaN near every start tried.
    """
    centre, spread = (
        torch.cat([getattr(site, key).reshape(-1) for site in sites.values()]).double()
        for key in ("location", "scale")
    )
    shapes = {name: site.location.shape for name, site in sites.items()}

    def split(vector: Tensor) -> dict[str, Tensor]:
        """``[…, D]`` to ``{site: […, *shape]}``, in the dtype of each site."""
        parts = vector.split([shape.numel() for shape in shapes.values()], -1)
        return {
            name: part.reshape(part.shape[:-1] + shapes[name]).to(sites[name].location.dtype)
            for name, part in zip(shapes, parts, strict=True)
        }

    with seeded(seed):
        half = torch.randn((_PAIRS, len(centre)), dtype=torch.float64).to(centre)
        shifts = torch.randn((_TRIES, len(centre)), dtype=torch.float64).to(centre)
    half = half / half.square().mean(0).sqrt()  # of variance 1: exact for independent Gaussians
    noise = torch.cat([half, -half])
    shifts[0] = 0.0

    def at(point: Tensor) -> Tensor:
        return _log_density(problem, sites, split(point))

    density = Density(at, centre, problem, _POINTS)

    def descend(location: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, float] | None:
        """(m, s) from there, m along the axes of the curvature there, and their bound."""
        axes = _axes(density, location, scale, noise, pairs=1)

        def region(parameters: Tensor) -> tuple[Tensor, Tensor]:
            shift, log_scale = parameters
            # no further than e^±5 a descent: far out a first step would close the region for good
            return location + axes @ shift, scale * (
                _FARTHEST * (log_scale / _FARTHEST).tanh()
            ).exp()

        def loss(parameters: Tensor) -> Tensor:
            m, s = region(parameters)
            return -(density(m + s * noise).mean() + s.log().sum())

        found = _descend(loss, torch.zeros((2, len(location))).to(location))
        return None if found is None else (*region(found[0]), -found[1])

    for shift in shifts:
        scale = _NARROW * spread
        found = descend(centre + scale * shift, scale)
        for _ in range(_ROUNDS - 1):  # each in the units that the last has found
            if found is None:
                break
            further = descend(*found[:2])
            gain = torch.inf if further is None else further[2] - found[2]
            found = further
            if gain < _GAIN * len(centre):
                break
        if found is not None:
            location, scale, _ = found
            tril = _joint_scale(density, location, scale, noise)
            return Region(sites, split(location), split(scale), tril)
    raise NumericalError(
        f"model '{problem.name}': no start of finite posterior density in {_TRIES} tries near the "
        "centre of the prior. Start from a fit instead (initialise_from), or narrow the priors."
    )


def _log_density(
    problem: Problem, sites: Mapping[str, LatentSite], point: Mapping[str, Tensor]
) -> Tensor:
    """log p(x, T(u)) + log |∂T/∂u| at one point, discrete latents summed out."""
    values, jacobian = {}, torch.zeros(())
    for name, site in sites.items():
        transform = site.transform
        values[name] = transform(point[name])
        jacobian = jacobian + transform.log_abs_det_jacobian(point[name], values[name]).sum()
    return problem.factors(values).log_density() + jacobian


def _joint_scale(density: Density, location: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """The Cholesky factor of Σ, or the independent scales where their bound is the better one."""
    axes = _axes(density, location, scale, noise, pairs=_PAIRS)
    tril = torch.linalg.cholesky_ex(axes @ axes.mT).L

    def bound(tril: Tensor) -> float:
        return float(density(location + noise @ tril.mT).mean() + tril.diagonal().log().sum())

    with torch.no_grad():
        return tril if bound(tril) > bound(scale.diag()) else scale.diag()


def _axes(
    density: Density,
    location: Tensor,
    scale: Tensor,
    noise: Tensor,
    *,
    pairs: int,
) -> Tensor:
    """A with Σ = A Aᵀ, ``[D, D]``; s alone where D is large.

    Λ's columns are difference quotients of gradients, averaged over ``pairs`` of draws, fewer where
    D is large.
    """
    size = len(location)
    if size > _MOST_FOR_CURVATURE:
        return scale.diag()
    draws = 2 * max(1, min(pairs, _CURVATURE_POINTS // (4 * size)))
    half = len(noise) // 2
    chosen = torch.cat([noise[: draws // 2], noise[half : half + draws // 2]])
    steps = _STEP * torch.eye(size).to(scale)
    shifts = torch.stack([steps, -steps], 1)  # [D, 2, D]
    points = location + scale * (chosen + shifts.unsqueeze(2))  # [D, 2, draws, D]
    slopes = density.gradients(points.reshape(-1, size))[1]
    ahead, behind = (scale * slopes).reshape(size, 2, draws, size).mean(2).unbind(1)
    curvature = (behind - ahead) / (2 * _STEP)
    if not curvature.isfinite().all():
        return scale.diag()
    values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
    return scale.unsqueeze(-1) * vectors * values.abs().clamp(min=_FLATTEST).rsqrt()


def _descend(loss: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, float] | None:
    """The best of the points L-BFGS visits, and its loss; None where even the first is infinite."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=_NUM_STEPS, line_search_fn="strong_wolfe")
    best: tuple[Tensor, float] | None = None

    def closure() -> Tensor:
        nonlocal best
        value = loss(parameters)
        (parameters.grad,) = torch.autograd.grad(value, parameters)
        finite = bool(torch.isfinite(value) & parameters.grad.isfinite().all())
        if finite and (best is None or value < best[1]):
            best = parameters.detach().clone(), value.item()
        return value

    with torch.enable_grad(), suppress(IndexError):  # torch's search ends so at a step to NaN
        optimizer.step(closure)
    return best
