"""When to stop a stochastic ascent: no gain in sight at one step size, then a smaller step, then an end.

The bound is noisy, so "it changed little" says nothing: one draw's noise hides gains a hundred
times larger than what a run should end at. The iterates know better. Over a window of n steps an
optimiser that divides gradients by a metric M (Adam's: root mean square gradient by step size)
has moved by Δθ = -n M⁻¹ ∇loss, its noise averaged away; so the mean gradient is known, and

    gain = Σᵢ (Σₜ Mₜᵢ Δθₜᵢ / n) (θ̄₂ - θ̄₁)ᵢ

is what the bound gained from the mean iterate θ̄₁ of one half of the window to that of the
other. Drift along a ridge counts by what it gains, and no further. And the Monte Carlo error of
the mean iterate of n steps, var(θᵢ) τᵢ / n with τᵢ = 2 Mᵢ/hᵢ steps between independent iterates, costs

    ½ Σᵢ hᵢ var(θ̄ᵢ) = Σᵢ Mᵢ var(θᵢ) / n

nats, whatever the curvatures hᵢ. A stage (one learning rate) ends when

- the gain, gone on with for as many steps as the stage has had and at least HORIZON, and the
  cost of the Monte Carlo error together are below ``resolution`` nats;
- the bound agrees: its mean over the last quarter is not detectably above that of the quarter
  before, m₂ - m₁ < 2 √(se₁² + se₂²), with standard errors from batch means.

An optimiser without a known metric, or with gradients that are cut short, is asked instead whether
its iterates are stationary: split R-hat of the window's halves is at most 1.2 for 95 % of the
parameters (Welandawe et al. 2022, "Robust, automated, and accurate black-box variational
inference", whose predicted gain is the idea of the first test, too), or the bound's own error is
below ``resolution``.

The windows grow with the stage, so a slow drift is found as the tests gain power. Each
stage ends by dividing the learning rate; the last one, which has LAST_STAGE steps at least because
they are what is averaged, ends the run.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.posterior import Status

FIRST_CHECK = 400
LAST_STAGE = 1000
GROWTH = 1.3
HORIZON = 1000
MAX_COORDINATES = 1000
RHAT_LIMIT = 1.2
PATIENCE = 3


class StopState(NamedTuple):
    """What a rule has seen of its stage at some moment, which nothing it sees later changes.

    The lists only grow, and the first ``looks`` of each count.
    """

    stage: int
    next_check: int
    steps: int
    looks: int
    iterates: list[Tensor]
    metrics: list[Tensor]

    def parts(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """What a resumed rule needs besides the bounds of its stage."""
        kept = {"iterates": self.iterates[: self.looks], "metrics": self.metrics[: self.looks]}
        numbers = {
            "stage": self.stage,
            "next_check": self.next_check,
            "stage_steps": self.steps,
        }
        return {k: torch.stack(v) if v else torch.zeros(0) for k, v in kept.items()}, numbers


class PlateauRule:
    """Divides the learning rate whenever a stage is stationary; converged after the last.

    Args:
        reduce_learning_rate: called at the end of every stage but the last.
        iterate: the current parameters as one vector; at most MAX_COORDINATES of them are looked
            at every ``thin`` steps.
        metric: by what the optimiser divides the gradients of those that are looked at, given
            which of how many one is; None if unknown.
        resolution: a gain of the bound, in nats, not worth waiting for.
        stages: number of learning rates.
    """

    def __init__(
        self,
        reduce_learning_rate: Callable[[], None],
        iterate: Callable[[], Tensor],
        *,
        metric: Callable[[int], Tensor] | None = None,
        resolution: float = 0.2,
        stages: int = 2,
        thin: int = 4,
    ) -> None:
        self.reduce_learning_rate, self.iterate = reduce_learning_rate, iterate
        self.metric = metric
        self.resolution, self.stages, self.thin = resolution, stages, thin
        self.stage = 0
        self._begin()

    def _begin(self) -> None:
        self._elbo: list[float] = []
        self._iterates: list[Tensor] = []
        self._metrics: list[Tensor] = []
        first = LAST_STAGE if self.stage == self.stages - 1 else FIRST_CHECK
        self._next_check = max(first, 8 * self.thin)

    def __call__(self, step: int, elbo: float) -> Status | None:
        """Take one more value of the bound; return CONVERGED at the end of the last stage."""
        self._elbo.append(elbo)
        if len(self._elbo) % self.thin:
            return None
        iterate = self.iterate()
        stride = max(1, math.ceil(iterate.numel() / MAX_COORDINATES))
        self._iterates.append(iterate[::stride].clone())
        if self.metric is not None:
            self._metrics.append(self.metric(stride))
        if len(self._elbo) < self._next_check:
            return None
        if self._metrics and bool(self._metrics[-1].isinf().all()):
            return Status.STOPPED_AT_LIMIT  # a schedule's steps came to 0: nothing moves any more
        self._next_check = self.thin * math.ceil(GROWTH * self._next_check / self.thin)
        if not self._is_stationary():
            return None
        self.stage += 1
        if self.stage == self.stages:
            return Status.CONVERGED
        self._begin()
        self.reduce_learning_rate()
        return None

    def expect(self) -> tuple[float, float, int | None]:
        """The recent bound, its standard error, and how many steps the rule still needs.

        The number is None while the bound still climbs, by its own trend or by what the iterates
        predict; once it does not, the next look ends this stage and the later ones end at their first.
        """
        recent = self._elbo[-max(10, len(self._elbo) // 4) :]
        if len(recent) < 10:
            return math.nan, math.nan, None
        value, error = batch_mean(recent)
        earlier = self._elbo[-2 * len(recent) : -len(recent)]
        if len(earlier) < 10:
            return value, error, None
        before, before_error = batch_mean(earlier)
        if value - before > 2 * math.hypot(error, before_error):
            return value, error, None
        if self._metrics[3:] and self.to_be_had() > self.resolution:
            return value, error, None
        later = max(0, self.stages - 2 - self.stage) * FIRST_CHECK
        later += LAST_STAGE if self.stage < self.stages - 1 else 0
        return value, error, self._next_check - len(self._elbo) + later

    @property
    def seen(self) -> StopState:
        """What it goes by now."""
        looks = len(self._iterates)
        return StopState(
            self.stage, self._next_check, len(self._elbo), looks, self._iterates, self._metrics
        )

    def restore(
        self, tensors: Mapping[str, Tensor], numbers: Mapping[str, int], elbo: list[float]
    ) -> None:
        """Take back the parts of what was seen; ``elbo`` holds the bounds of the whole run."""
        self.stage, self._next_check = numbers["stage"], numbers["next_check"]
        self._elbo = elbo[len(elbo) - numbers["stage_steps"] :]
        self._iterates, self._metrics = list(tensors["iterates"]), list(tensors["metrics"])

    def begin_stage_again(self) -> None:
        """Forget the bounds and iterates of this stage."""
        self._begin()

    def to_be_had(self) -> float:
        """Nats that more steps would change the bound by: predicted gain and Monte Carlo error."""
        begin = len(self._iterates) // 2
        window = torch.stack(self._iterates[begin:]).double()
        metrics = torch.stack(self._metrics[begin:]).double()
        metrics = torch.where(metrics.isinf(), 0.0, metrics)  # steps of size 0 move nothing
        metric = metrics.mean(0)
        half = len(window) // 2
        moved = window[-half:].mean(0) - window[:half].mean(0)
        pull = (metrics[1:] * window.diff(dim=0)).sum(0) / (self.thin * (len(window) - 1))
        gain_a_step = abs(float(pull @ moved)) / (self.thin * (len(window) - half))
        steps = len(self._elbo)
        monte_carlo = float(metric @ window.var(0)) / steps
        thinned = self.iterate().numel() / len(metric)
        return thinned * (gain_a_step * max(steps, HORIZON) + monte_carlo)

    def _is_stationary(self) -> bool:
        quarter = len(self._elbo) // 4
        before = batch_mean(self._elbo[-2 * quarter : -quarter])
        after = batch_mean(self._elbo[-quarter:])
        detectable = 2 * math.hypot(before[1], after[1])
        if after[0] - before[0] > detectable:
            return False
        if self.metric is not None:
            return self.to_be_had() < self.resolution
        if len(self._elbo) > PATIENCE * FIRST_CHECK and detectable < self.resolution:
            return True
        window = torch.stack(self._iterates[len(self._iterates) // 2 :])
        moving = window[:, window.amax(0) > window.amin(0)]  # some guides keep constants, too
        return moving.numel() == 0 or float(split_rhat(moving).quantile(0.95)) <= RHAT_LIMIT


def split_rhat(window: Tensor) -> Tensor:
    """Split R-hat of one sequence per column, ``[n, P] -> [P]``: its two halves as chains."""
    half = window.shape[0] // 2
    chains = torch.stack([window[:half], window[-half:]]).double()
    within = chains.var(1).mean(0)
    between = chains.mean(1).var(0)
    return ((half - 1) / half + between / within.clamp(min=1e-300)).sqrt()


def batch_mean(values: list[float], batches: int = 10) -> tuple[float, float]:
    """The mean of correlated values and its standard error from ``batches`` batch means."""
    size = len(values) // batches
    means = [math.fsum(values[i * size : (i + 1) * size]) / size for i in range(batches)]
    mean = math.fsum(means) / batches
    variance = math.fsum((m - mean) ** 2 for m in means) / (batches - 1)
    return mean, math.sqrt(variance / batches)
