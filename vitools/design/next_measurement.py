"""The measurement that is expected to tell most: the best of a list, or found by gradient in a range."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro import poutine
from scipy.optimize import minimize
from torch import Tensor

from vitools.design.expected import NUM_SAMPLES, check_method, gains_of
from vitools.design.experiment import Candidate, Experiment, candidates
from vitools.design.gains import InformationGains, described
from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import seeded
from vitools.posterior import Estimate, Posterior
from vitools.problem.density.draws import vmap_can_draw

STARTS, CLIMBS, STEPS, CLIMBED = 24, 3, 40, 200
"""Designs looked at in a range, how many of them are improved, in how many steps, with how many draws."""


@dataclass(frozen=True, eq=False)
class Choice:
    """A design, what it is expected to tell, and the others that were looked at.

    Attributes:
        design: as the model is called with it.
        gain: its expected information gain.
        gains: of the candidates; of a search in a range, of its result alone.
    """

    design: Any
    gain: Estimate
    gains: InformationGains

    def __str__(self) -> str:
        return f"measure at {described(self.design)}: {self.gain} nats expected"


def next_measurement(
    model: Callable[..., Any] | Posterior,
    designs: Any = None,
    *,
    bounds: tuple[Any, Any] | None = None,
    observations: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    method: str = "auto",
    flow: str | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Choice:
    """The best design by expected information gain.

    In a range the contrastive bound with the random numbers held fixed is climbed by gradient (L-BFGS)
    from the best of some places, which takes outcomes that are continuous functions of the design; the
    gain that is returned is found anew by ``method``.

    Args:
        model, observations, targets, method, flow, num_samples, seed: of
            :func:`~vitools.design.expected_information_gain`. A fit has seen all data so far.
        designs: candidates to choose from.
        bounds: in place of a list: the lowest and the highest design of one measurement, numbers or
            tensors ``[…]``.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def ruler(x, y=None):
        ...     w = pyro.sample("w", dist.Normal(torch.tensor(0.0).double(), 1.0))
        ...     with pyro.plate("measurements", len(x)):
        ...         pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)
        >>> print(next_measurement(ruler, bounds=(0.0, 3.0)))
        measure at 3: 1.15... nats expected
    """
    check_method(method, flow)
    experiment = Experiment(model, observations, targets)
    if (designs is None) == (bounds is None):
        raise OptionError(
            "designs, bounds: expected one of the two, a list of candidates or a range; got "
            f"{'none' if designs is None else 'both'}."
        )
    listed = candidates(designs) if bounds is None else [_climbed(experiment, bounds, seed)]
    gains = gains_of(experiment, listed, method, flow, num_samples, seed)
    return Choice(gains.design, gains[gains.best], gains)


def _climbed(experiment: Experiment, bounds: object, seed: int) -> Tensor:
    """A batch of one measurement."""
    low, high = _range(bounds)
    size = low.numel()
    sobol = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)
    places = sobol.draw(STARTS, dtype=torch.float64)
    if size == 1:
        places = torch.linspace(0, 1, STARTS, dtype=torch.float64).unsqueeze(1)
    span = (high - low).reshape(-1)

    def as_design(place: Tensor) -> Tensor:
        return (low.reshape(-1) + span * place).reshape(1, *low.shape)

    candidate = experiment.at(as_design(places[0]), seed)
    climb = _Climb(candidate, experiment.model, seed)

    def loss(place: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.as_tensor(place).requires_grad_()
        with torch.enable_grad():
            value = -climb.bound(as_design(point))
            (slope,) = torch.autograd.grad(value, point)
        return float(value.detach()), slope.numpy()

    with torch.no_grad():
        heights = torch.stack([climb.bound(as_design(place)) for place in places])
    order = heights.argsort(descending=True)[:CLIMBS]
    found = [
        minimize(
            loss,
            places[i].numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * size,
            options={"maxiter": STEPS},
        )
        for i in order.tolist()
    ]
    best = min(found, key=lambda result: result.fun)
    return as_design(torch.as_tensor(best.x))


def _range(bounds: object) -> tuple[Tensor, Tensor]:
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        raise OptionError(f"bounds: expected the lowest and the highest design, got {bounds!r}.")
    try:
        low, high = (torch.as_tensor(end, dtype=torch.float64) for end in bounds)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"bounds: expected numbers or tensors, got {bounds!r}.") from error
    if (
        low.shape != high.shape
        or not bool((low < high).all())
        or not bool((high - low).isfinite().all())
    ):
        raise OptionError(f"bounds: expected a finite range with low < high, got {bounds!r}.")
    return low, high


class _Climb:
    """The contrastive bound as a differentiable function of the design, its random numbers held fixed."""

    def __init__(self, candidate: Candidate, model: Callable[..., Any], seed: int) -> None:
        problem = candidate.problem
        if candidate.nuisances or problem.discrete or problem.free_params:
            raise NotSupportedError(
                "bounds: a gradient needs latents that are all continuous and targets, and a model "
                "without parameters of its own. Give candidates: designs=…"
            )
        for name, site in problem.observed.items():
            if site.is_discrete:
                raise NotSupportedError(
                    f"bounds: outcome '{name}' is discrete, and no function of the design that has a "
                    "gradient. Give candidates: designs=…"
                )
        self.problem, self.model, self.seed = problem, model, seed
        self.draws = candidate.draws(CLIMBED, 16 * seed + 8)

    def _nodes(self, design: Tensor, given: dict[str, Tensor]) -> Any:
        free = poutine.uncondition(self.model)
        return poutine.trace(poutine.condition(free, data=given)).get_trace(design).nodes

    def bound(self, design: Tensor) -> Tensor:
        """info_nce as a tensor with its gradient."""
        seen = list(self.problem.observed)

        def drawn(draw: dict[str, Tensor]) -> dict[str, Tensor]:
            nodes = self._nodes(design, draw)
            return {name: nodes[name]["value"] for name in seen}

        def of_draw(draw: dict[str, Tensor]) -> Tensor:
            def of_outcome(outcome: dict[str, Tensor]) -> Tensor:
                nodes = self._nodes(design, {**draw, **outcome})
                return sum(nodes[k]["fn"].log_prob(outcome[k]).sum() for k in seen)

            return torch.vmap(of_outcome)(outcomes)

        with seeded(self.seed), self.problem._isolated(), vmap_can_draw():
            outcomes = torch.vmap(drawn, randomness="different")(self.draws)
            table = torch.vmap(of_draw)(self.draws).mT.double()
        return table.diagonal().mean() - (table.logsumexp(1) - np.log(len(table))).mean()
