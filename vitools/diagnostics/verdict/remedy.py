"""The next thing to try, from what reweighting says the fit has missed.

Three things are looked for in the weighted draws, in this order: a funnel (the spread of one site
follows another), a correlation that the fit does not have, a mean that has not arrived. What is
found is named, with the cure that fits the kind of fit at hand: blocks for a product of factors, the
next rung for a guide. The rungs are independent factors, one Gaussian for all, a flow, NUTS; nobody is
sent to the rung where they stand.
"""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from vitools.diagnostics.reference.accuracy import Accuracy, entry_name
from vitools.diagnostics.weights.psis import SmoothedWeights
from vitools.diagnostics.weights.site_khat import SiteKhat
from vitools.posterior import FactorisedPosterior, GaussianPosterior, Posterior
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

CLEAR = 0.3
"""Correlations (or differences of them) below this are not worth a sentence."""

SURE = 4.0  # in standard errors of a correlation, 1 / √(effective size): many are looked at
MOST_ENTRIES = 150
NOT_ARRIVED = 0.2

GAUSSIAN = {"Normal", "MultivariateNormal"}
"""Sites that one factor of coordinate ascent can hold together."""

JOINT_GUIDE = "svi() with a guide that draws them together (AutoMultivariate)"
FLOW = "a guide of another shape (AutoFlow)"
NO_GUIDE = "nuts(), or reparameterise the model until its posterior is nearer to a Gaussian"

GAUSSIAN_GUIDES = {
    "AutoMultivariate",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoLaplaceApproximation",
    "AutoGaussian",
}
FLOW_GUIDES = {"AutoFlow", "AutoNormalizingFlow", "AutoIAFNormal"}


def suggest(
    posterior: Posterior,
    values: Mapping[str, Tensor],
    weights: SmoothedWeights,
    khats: Mapping[str, SiteKhat],
    correction: Accuracy | None,
) -> str:
    """One sentence of advice.

    Args:
        values: the fit's draws of its continuous latents, ``{site: [n, *shape]}``.
        weights: of those draws, whatever their k̂: the direction of a correction is told sooner
            than its size.
    """
    vector, names, owners = _entries(posterior, values, khats)
    return (
        _of_funnel(posterior, values, weights, khats)
        or _of_correlation(posterior, vector, names, owners, weights)
        or _of_means(posterior, correction)
        or _of_shape(posterior, vector)
    )


def _entries(
    posterior: Posterior, values: Mapping[str, Tensor], khats: Mapping[str, SiteKhat]
) -> tuple[Tensor, list[str], list[str]]:
    """Unconstrained entries ``[n, P]``, the sites of highest k̂ first, with names and sites."""
    problem = posterior.problem
    space = UnconstrainedSpace(problem)
    vector = space.from_values(values).detach().cpu().double()
    order = sorted(problem.continuous, key=lambda name: -khats[name].value if name in khats else 0)
    columns: list[int] = []
    names: list[str] = []
    owners: list[str] = []
    for name in order:
        shape, where = space.shapes[name], space.slices[name]
        for i in range(where.start, where.stop)[: MOST_ENTRIES - len(columns)]:
            index = torch.unravel_index(torch.tensor(i - where.start), shape) if shape else ()
            columns.append(i)
            names.append(entry_name(name, tuple(int(k) for k in index)))
            owners.append(name)
    return vector[:, columns], names, owners


def _of_funnel(
    posterior: Posterior,
    values: Mapping[str, Tensor],
    weights: SmoothedWeights,
    khats: Mapping[str, SiteKhat],
) -> str:
    """A scalar whose value sets the spread of a whole site."""
    problem = posterior.problem
    scalars = [k for k, site in problem.continuous.items() if site.shape.numel() == 1]
    vectors = [k for k, site in problem.continuous.items() if site.shape.numel() > 2]
    found: tuple[float, str, str] | None = None
    for wide in vectors:
        x = values[wide].detach().cpu().double().flatten(1)
        share = weights.weights[:, None]
        deviation = (x - (share * x).sum(0)).square().mean(1).clamp(min=1e-300).log()
        for scale in scalars:
            u = problem.unconstrain({scale: values[scale]})[scale].detach().cpu().double()
            size = abs(
                float(
                    _correlations(torch.stack([u.flatten(), deviation], -1), weights.weights)[0, 1]
                )
            )
            if size > _least(weights) and (found is None or size > found[0]):
                found = size, wide, scale
    if found is None:
        return ""
    _, wide, scale = found
    return (
        f"the spread of {wide} follows {scale}: a funnel; reparameterise {wide} "
        "(LocScaleReparam), or use nuts()"
    )


def _of_correlation(
    posterior: Posterior,
    vector: Tensor,
    names: list[str],
    owners: list[str],
    weights: SmoothedWeights,
) -> str:
    """The pair of entries whose correlation the fit misses by most."""
    even = torch.full_like(weights.weights, 1.0 / len(weights.weights))
    missed = _correlations(vector, weights.weights) - _correlations(vector, even)
    best = max(
        combinations(range(len(names)), 2),
        key=lambda pair: float(missed[pair].abs().nan_to_num(0.0)),
        default=None,
    )
    if best is None or not float(missed[best].abs()) > _least(weights):
        return ""
    one, two = best
    said = f"{names[one]} and {names[two]} are correlated in the posterior, not in the fit"
    if _is_joint(posterior):
        said = f"{names[one]} and {names[two]} are correlated otherwise in the posterior"
    if not isinstance(posterior, FactorisedPosterior):
        return f"{said}: use {_next_rung(posterior)}"
    gaussian = {
        posterior.problem.latents[owner].distribution for owner in (owners[one], owners[two])
    }
    if owners[one] == owners[two] or not gaussian <= GAUSSIAN:
        return f"{said}: use {JOINT_GUIDE}"
    return (
        f"{said}: try cavi(problem, joint=[({owners[one]!r}, {owners[two]!r})]), or {JOINT_GUIDE}"
    )


def _of_means(posterior: Posterior, correction: Accuracy | None) -> str:
    if correction is None or isinstance(posterior, FactorisedPosterior):
        return ""
    is_off = correction.mean_error.value > NOT_ARRIVED
    if not is_off or abs(correction.sd_ratio.value - 1) > NOT_ARRIVED:
        return ""
    if isinstance(posterior, GaussianPosterior):  # by a mode or on fixed draws: it has no steps
        return (
            f"the mean of {correction.mean_error_at} is not where {posterior.engine} puts it: go on "
            "from here by svi(problem, AutoMultivariate, start=fit), or use nuts()"
        )
    return (
        f"the mean of {correction.mean_error_at} has not arrived: run longer, or with a smaller "
        "step at the end; then a richer guide"
    )


def _of_shape(posterior: Posterior, vector: Tensor) -> str:
    if vector.shape[1] == 1 and not _is_flow(posterior):
        return f"{FLOW}, or nuts()"
    even = torch.full((len(vector),), 1.0 / len(vector), dtype=torch.float64)
    own = _correlations(vector, even).fill_diagonal_(0.0).abs().nan_to_num(0.0)
    has_none = float(own.max()) < SURE / len(vector) ** 0.5
    if has_none and not _is_joint(posterior) and not isinstance(posterior, FactorisedPosterior):
        return f"the fit has no correlations at all: try {_next_rung(posterior)}"
    return _next_rung(posterior)


def _next_rung(posterior: Posterior) -> str:
    if _is_flow(posterior):
        return NO_GUIDE
    return f"{FLOW if _is_joint(posterior) else JOINT_GUIDE}, or nuts()"


def _is_joint(posterior: Posterior) -> bool:
    """Whether all sites are drawn together already."""
    if isinstance(posterior, GaussianPosterior):
        return bool((posterior.scale_tril.tril(-1) != 0).any())
    return _is_flow(posterior) or bool(_guide_classes(posterior) & GAUSSIAN_GUIDES)


def _is_flow(posterior: Posterior) -> bool:
    return bool(_guide_classes(posterior) & FLOW_GUIDES)


def _guide_classes(posterior: Posterior) -> set[str]:
    """By name, bases included: guides belong to a higher layer."""
    guide = getattr(posterior, "guide", None)
    return {kind.__name__ for kind in type(guide).__mro__}


def _least(weights: SmoothedWeights) -> float:
    return max(CLEAR, SURE / weights.effective_size**0.5)


def _correlations(vector: Tensor, weights: Tensor) -> Tensor:
    """``[P, P]``; NaN for columns that do not vary."""
    centred = vector - (weights[:, None] * vector).sum(0)
    covariance = torch.einsum("n,ni,nj->ij", weights, centred, centred)
    sd = covariance.diagonal().sqrt()
    return covariance / (sd[:, None] * sd)
