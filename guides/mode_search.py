"""A quick, deterministic search for a region of high posterior mass, for guides to start from.

    maximise over m, s   (1/S) Σ_i [log p(x, T(u_i)) + log |∂T/∂u|] + Σ log s,   u_i = m + s z_i

with the same few draws z_i ~ N(0, I) throughout (in pairs z, -z), so that L-BFGS applies. A bare
mode would not do: where a scale of the model may go to 0 the density is infinite there, and no
guide can start at such a point; the term Σ log s keeps the region from closing.

R. Giordano, M. Ingram, T. Broderick (2024), "Black box variational inference with a deterministic
objective", JMLR 25.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.errors import NumericalError
from vitools.guides.family import LatentSite
from vitools.isolation import seeded
from vitools.problem import Problem

_PAIRS = 8
_ROUNDS = 3
_NUM_STEPS = 25  # of L-BFGS a round
_NARROW = 0.1  # the first spread, as a share of the prior's
_TRIES = 10


@dataclass(frozen=True)
class Region:
    """Independent normals on the reals, site by site.

    Attributes:
        location, scale: ``{site: unconstrained value}``.
    """

    sites: Mapping[str, LatentSite]
    location: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]

    def sample(self, n: int, seed: int) -> dict[str, Tensor]:
        """``{site: [n, …]}`` on the sites' supports."""
        with seeded(seed):
            noise = {name: torch.randn((n, *m.shape)).to(m) for name, m in self.location.items()}
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

    def descend(centre: Tensor, unit: Tensor) -> tuple[Tensor, Tensor] | None:
        """(m, s) from there, the problem scaled by ``unit``."""

        def loss(parameters: Tensor) -> Tensor:
            location, log_scale = parameters
            points = split(centre + unit * (location + log_scale.exp() * noise))
            return -(_log_density(problem, sites, points).mean() + log_scale.sum())

        found = _descend(loss, torch.zeros((2, len(centre))).to(centre))
        return None if found is None else (centre + unit * found[0], unit * found[1].exp())

    for shift in shifts:
        found = descend(centre + _NARROW * spread * shift, _NARROW * spread)
        for _ in range(_ROUNDS - 1):  # in its own new unit: posteriors are narrower than priors
            found = found and descend(*found)
        if found is not None:
            return Region(sites, *map(split, found))
    raise NumericalError(
        f"model '{problem.name}': no start of finite posterior density in {_TRIES} tries near the "
        "centre of the prior. Start from a fit instead (initialise_from), or narrow the priors."
    )


def _log_density(
    problem: Problem, sites: Mapping[str, LatentSite], points: Mapping[str, Tensor]
) -> Tensor:
    """log p(x, T(u)) + log |∂T/∂u| at each of ``[n]`` points, discrete latents summed out."""
    values, jacobian = {}, torch.zeros(())
    for name, site in sites.items():
        transform = site.transform
        values[name] = transform(points[name])
        log_det = transform.log_abs_det_jacobian(points[name], values[name])
        jacobian = jacobian + log_det.reshape(len(log_det), -1).sum(-1)
    return problem.log_joint(values) + jacobian


def _descend(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor | None:
    """The best of the points L-BFGS visits; None where even the first is not finite."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=_NUM_STEPS, line_search_fn="strong_wolfe")
    best: Tensor | None = None
    least = torch.inf

    def closure() -> Tensor:
        nonlocal best, least
        value = loss(parameters)
        (parameters.grad,) = torch.autograd.grad(value, parameters)
        finite = bool(torch.isfinite(value) & parameters.grad.isfinite().all())
        if finite and value < least:
            best, least = parameters.detach().clone(), value.item()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return best
