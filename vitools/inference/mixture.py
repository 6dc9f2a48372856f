"""One posterior out of several fits: their mixture."""

import time
from collections.abc import Mapping

from vitools.diagnostics.evidence.union import FitUnion, measure_union
from vitools.diagnostics.weights.khat import khat_threshold
from vitools.diagnostics.weights.psis import SmoothedWeights, smooth
from vitools.errors import NotSupportedError, OptionError, clause
from vitools.inference.proportions import with_errors
from vitools.posterior import (
    DrawsPosterior,
    Estimate,
    MixturePosterior,
    Posterior,
    Status,
)
from vitools.problem.sites import listed
from vitools.reporting.comparison.alike import check_alike, have_equal_params
from vitools.whole_numbers import check_seed, check_whole

FEWEST_DRAWS = 100
NEGLIGIBLE = 1e-6
"""A weight that is rounding."""


def mix(
    fits: Mapping[str, Posterior], *, num_samples: int = 4000, seed: int = 0
) -> MixturePosterior:
    """The mixture Σ_k α_k q_k(θ) of several fits that is nearest to the posterior.

    Draws of all fits are weighed as one sample of the posterior by multiple importance sampling
    (:mod:`~vitools.diagnostics.evidence.union`), and α maximises the weighted log likelihood of that
    sample, which minimises KL(p(θ | x) ‖ Σ_k α_k q_k)
    (:mod:`~vitools.inference.proportions`). So fits of separate modes get the modes' masses, and a fit
    that another contains gets nothing. No engine runs: a mode that no fit knows stays unknown, and what
    the fits lack together, the judge says of the mixture as of any other fit.

    Args:
        fits: ``{name: posterior}``, of one problem, with the same values of the model's own parameters,
            each with a density. Two or more.
        num_samples: draws of each.

    Returns:
        A mixture of the fits with a weight above 0, in their order; ``detail`` names them, with
        ``weights`` and ``weight_errors`` (standard errors, by the jackknife), ``least_evidence`` (log p(x)
        as far as the fits reach, which is no more than all of it), and k̂ of the weights that they rest on.

    Raises:
        OptionError, NotSupportedError: a fit of another problem, a point estimate, or one without a
            density (a sampler's draws).
        NumericalError: a fit whose density is no number somewhere.

    Example:
        >>> import torch
        >>> from vitools import Problem, judge, mix
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]).double())  # Beta(3, 2)
        >>> def beta(a, b):
        ...     q = torch.distributions.Beta(*torch.tensor([a, b]).double())
        ...     return FactorisedPosterior(
        ...         problem, {"p": q}, 0.0, engine="by hand", status=Status.CONVERGED)
        >>> mixed = mix({"low": beta(3.0, 3.0), "high": beta(4.0, 2.0)})  # 2/5 and 3/5 of them are Beta(3, 2)
        >>> [round(weight, 1) for weight in mixed.weights.tolist()]
        [0.4, 0.6]
        >>> print(round(mixed.least_evidence.value, 2), "|", judge(mixed).verdict)  # log 1/12
        -2.48 | trust
    """
    began = time.perf_counter()
    _check(fits)
    check_whole("num_samples", num_samples, FEWEST_DRAWS)
    check_seed(seed)
    try:
        union = measure_union(fits, num_samples, seed)
    except NotSupportedError as error:
        raise NotSupportedError(
            f"a fit cannot be scored at the draws of the others, which a mixture needs: "
            f"{clause(error)}. Leave it out."
        ) from error
    smoothed = smooth(union.log_weights.flatten())
    weights, errors = with_errors(union.log_densities.flatten(0, 1), smoothed.weights)
    kept = [k for k, weight in enumerate(weights.tolist()) if weight > NEGLIGIBLE]
    chosen = [list(fits.values())[k] for k in kept]
    return MixturePosterior(
        chosen[0].problem,
        weights[kept],
        chosen,
        weight_errors=errors[kept],
        least_evidence=union.least_evidence,
        engine="mix",
        status=Status.CONVERGED,
        detail=_detail(union, smoothed, weights.tolist(), errors.tolist()),
        seconds=time.perf_counter() - began,
        seed=seed,
    )


def _check(fits: Mapping[str, Posterior]) -> None:
    if not isinstance(fits, Mapping):
        got = "one fit" if isinstance(fits, Posterior) else f"a {type(fits).__name__}"
        raise OptionError(
            f"fits: expected {{name: fit}}, got {got}. Give each fit a name: "
            'mix({"left": one, "right": other}).'
        )
    for name, fit in fits.items():
        if not isinstance(fit, Posterior):
            raise OptionError(
                f"fit '{name}': expected a Posterior (what cavi, svi and laplace return), got "
                f"{type(fit).__name__}."
            )
    if len(fits) < 2:
        raise OptionError(f"fits: expected two or more to mix, got {len(fits)}.")
    check_alike(fits, "Mix")
    (first, one), *others = fits.items()
    for name, other in others:
        if not have_equal_params(one, other):
            raise OptionError(
                f"'{first}' and '{name}' are fits of different models: the parameters "
                f"{listed(one.problem.free_params)} have other values. Mix fits that were given the "
                "same ones (fit.problem of one that trained them)."
            )
    if not one.problem.drawn:
        raise OptionError(
            f"model '{one.problem.name}' has only discrete latents, which are summed out exactly: "
            "there is nothing to mix. Use any of the fits."
        )
    for name, fit in fits.items():
        if isinstance(fit, DrawsPosterior):
            raise NotSupportedError(
                f"fit '{name}' ({fit.engine}) is a sampler's draws, which have no density to mix. "
                "Leave it out."
            )
        if fit.points:
            raise NotSupportedError(
                f"fit '{name}' is a point estimate of {listed(fit.points)}: a point has no density to "
                "mix. laplace(problem) gives one."
            )


def _detail(
    union: FitUnion, smoothed: SmoothedWeights, weights: list[float], errors: list[float]
) -> str:
    """``weights left 0.61 ± 0.01, right 0.39 ± 0.01; log p(x) at least -3.21 ± 0.01 (as far as the fits reach); k̂ 0.12 ± 0.03``."""
    shares = [
        f"{name} {Estimate(weight, error)}"
        for name, weight, error in zip(union.names, weights, errors, strict=True)
    ]
    most = khat_threshold(union.log_joint.numel())
    khat = f"k̂ {smoothed.khat}"
    if not smoothed.khat.value <= most:
        khat += f", above {most:.2f}: the weights are not to be relied on"
    least = f"log p(x) at least {union.least_evidence} (as far as the fits reach)"
    return f"weights {', '.join(shares)}; {least}; {khat}"
