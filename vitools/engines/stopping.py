"""When to stop a stochastic ascent: a plateau test, then a smaller step, then an end.

The bound is noisy, so "it changed little" says nothing; the question asked here is
whether the last window is *detectably* higher than the one before it. With window
means m₁, m₂ and their standard errors (batch means, since successive values share
parameters), a stage ends after ``patience`` windows with

    m₂ - m₁ < 2 √(se₁² + se₂²).

Each stage ends by dividing the learning rate; the last ends the run. Compare Welandawe
et al. 2022, "Robust, automated, and accurate black-box variational inference", which
adds R-hat windows to the same idea.
"""

import math
from collections.abc import Callable

from vitools.posterior import Status


class PlateauRule:
    """Divides the learning rate at each plateau of the bound; converged after the last.

    Args:
        reduce_learning_rate: called at every plateau but the last.
        window: steps per window.
        patience: windows in a row without a detectable gain before a stage ends.
        stages: number of learning rates.
    """

    def __init__(
        self,
        reduce_learning_rate: Callable[[], None],
        *,
        window: int = 100,
        patience: int = 3,
        stages: int = 3,
    ) -> None:
        self.reduce_learning_rate = reduce_learning_rate
        self.window, self.patience, self.stages = window, patience, stages
        self.stage = 0
        self.stage_start = 0
        self._values: list[float] = []
        self._previous: tuple[float, float] | None = None
        self._flat = 0

    def __call__(self, step: int, elbo: float) -> Status | None:
        """Take one more value of the bound; return CONVERGED at the end of the last stage."""
        self._values.append(elbo)
        if len(self._values) < self.window:
            return None
        current = batch_mean(self._values)
        self._values = []
        previous, self._previous = self._previous, current
        if previous is None:
            return None
        gain = current[0] - previous[0]
        noise = math.hypot(current[1], previous[1])
        self._flat = self._flat + 1 if gain < 2 * noise else 0
        if self._flat < self.patience:
            return None
        self.stage += 1
        if self.stage == self.stages:
            return Status.CONVERGED
        self._flat, self._previous, self.stage_start = 0, None, step
        self.reduce_learning_rate()
        return None


def batch_mean(values: list[float], batches: int = 10) -> tuple[float, float]:
    """The mean of correlated values and its standard error from ``batches`` batch means."""
    size = len(values) // batches
    means = [math.fsum(values[i * size : (i + 1) * size]) / size for i in range(batches)]
    mean = math.fsum(means) / batches
    variance = math.fsum((m - mean) ** 2 for m in means) / (batches - 1)
    return mean, math.sqrt(variance / batches)
