"""What a measurement is expected to tell, before it is made: the mutual information of targets and outcome."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vitools.design.experiment import Candidate, Experiment, candidates
from vitools.design.gains import InformationGains
from vitools.design.gaussian import by_laplace
from vitools.design.nested import contrastive, listed, listed_outcomes, nested
from vitools.design.on_grid import on_grid
from vitools.design.variational import marginal_gain, posterior_bound
from vitools.errors import NotSupportedError, OptionError
from vitools.guides.flow.zuko_flows import FLOWS
from vitools.posterior import DrawsPosterior, Estimate, Posterior
from vitools.problem.sites import nearest
from vitools.whole_numbers import check_seed, check_whole

METHODS: dict[str, Callable[..., Estimate]] = {
    "grid": on_grid,
    "listed": listed,
    "nested": nested,
    "contrastive": contrastive,
    "posterior": posterior_bound,
    "marginal": marginal_gain,
    "laplace": by_laplace,
}
WITH_FLOW = ("posterior", "marginal")
NUM_SAMPLES = 1000
LARGEST_SEED = 2**40
MOST_ON_GRID = 2
"""Latent dims up to which ``"auto"`` takes a grid."""


def expected_information_gain(
    model: Callable[..., Any] | Posterior,
    designs: Any,
    *,
    observations: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    method: str = "auto",
    flow: str | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> InformationGains:
    """I(targets; outcome) of each design, in nats.

    Args:
        model: a Pyro model called as ``model(design)``, believed as its priors say; or a fit of one,
            whose posterior is what is believed by now.
        designs: a tensor ``[C, …]``, each row of which is called as a batch of one measurement; or a
            list of designs, each called as it is.
        observations: sites that will be seen (``observation_labels`` of ``pyro.contrib.oed``). If
            omitted: those that are arguments of the model with default None; of a fit, its data.
        targets: latents to be learnt (``target_labels``); all that are not summed out, if omitted.
        method: ``"grid"`` (exact; up to three latent dims, one number or a list of outcomes),
            ``"listed"`` (below; outcomes that can be listed), ``"nested"`` (above), ``"contrastive"``
            (below), ``"posterior"`` (below) and ``"marginal"`` (above) with learnt densities,
            ``"laplace"`` (no bound); ``"auto"`` takes the first of grid, listed and nested that can
            be had.
        flow: of the learnt densities, a name in
            :data:`vitools.guides.flow.zuko_flows.FLOWS`; normal if omitted.
        num_samples: draws; nested and contrastive compare each with each, learnt densities take as
            many again to learn from. A grid takes none.
        seed: the same draws for every design, so that designs compare.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def ruler(x, y=None):  # a slope, measured at x
        ...     w = pyro.sample("w", dist.Normal(torch.tensor(0.0).double(), 1.0))
        ...     with pyro.plate("measurements", len(x)):
        ...         pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)
        >>> gains = expected_information_gain(ruler, torch.tensor([0.5, 1.0, 2.0]).double())
        >>> [round(gain.value, 4) for gain in gains]  # ½ log(1 + x²)
        [0.1116, 0.3466, 0.8047]
        >>> gains.design
        tensor([2.], dtype=torch.float64)
    """
    experiment = Experiment(model, observations, targets)
    return gains_of(experiment, candidates(designs), method, flow, num_samples, seed)


def gains_of(
    experiment: Experiment,
    designs: list[Any],
    method: str,
    flow: str | None,
    num_samples: int,
    seed: int,
) -> InformationGains:
    """The same of an experiment that is at hand."""
    check_method(method, flow)
    check_whole("num_samples", num_samples, 10)
    check_seed(seed, LARGEST_SEED)
    estimates = []
    for design in designs:
        candidate = experiment.at(design, seed)
        if method == "auto":  # of the first design, for all
            method = _first_that_can(candidate)
            if method == "grid":
                try:
                    estimates.append(on_grid(candidate, num_samples, seed))
                    continue
                except (
                    NotSupportedError
                ):  # an outcome that is no function of numbers, or has no quadrature
                    method = "nested"
        estimate = METHODS[method]
        if flow is not None:
            estimate = partial(estimate, flow=flow)
        estimates.append(estimate(candidate, num_samples, seed))
    return InformationGains(designs, estimates, method)


def check_method(method: str, flow: str | None) -> None:
    """Refuse names that are none, and a flow where nothing is learnt."""
    if not isinstance(method, str) or (method not in METHODS and method != "auto"):
        raise OptionError(
            f"method: expected one of auto, {', '.join(METHODS)}, got {method!r}."
            f"{nearest(str(method), METHODS)}"
        )
    if flow is not None and (not isinstance(flow, str) or flow not in FLOWS):
        raise OptionError(f"flow: expected one of {', '.join(FLOWS)} or None, got {flow!r}.")
    if flow is not None and method not in WITH_FLOW:
        raise OptionError(
            f"flow: only methods {' and '.join(WITH_FLOW)} learn a density; method is '{method}'. "
            "Leave it out."
        )


def _first_that_can(candidate: Candidate) -> str:
    if candidate.nuisances or any(
        candidate.problem.latents[name].is_discrete for name in candidate.targets
    ):
        return "nested"
    few = listed_outcomes(candidate) is not None
    observed = candidate.problem.observed.values()
    single = sum(site.shape.numel() for site in observed) == 1
    simple = single and not candidate.problem.discrete
    own = candidate.fit is None or candidate.is_the_fits
    if candidate.space.size <= MOST_ON_GRID and (few or simple) and own and _has_density(candidate):
        return "grid"
    return "listed" if few else "nested"


def _has_density(candidate: Candidate) -> bool:
    return not isinstance(candidate.fit, DrawsPosterior)
