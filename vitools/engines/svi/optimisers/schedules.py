"""Schedules: how the step size of an optimiser changes over a run.

A schedule is a function from the number of steps taken to a factor of the learning rate. The
standard ones, with w steps of linear warm-up before them and s = t - w:

    ConstantRate       1
    Cosine         floor + (1 - floor) (1 + cos(π s / S)) / 2 up to s = S, then the floor
    Exponential    factor ^ (s / S)
    Stages         factors[i] up to step ends[i], then the next

Reference for the cosine: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm
restarts", ICLR 2017.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any

from vitools.errors import OptionError

Schedule = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What the standard schedules share: the factor climbs to 1 over the first steps.

    Args:
        warm_up: how many of them; the first step has the factor 1 / warm_up.
    """

    warm_up: int = 0

    def __post_init__(self) -> None:
        if self.warm_up < 0:
            raise _refusal(self, "warm_up of at least 0 steps")

    def __call__(self, step: int) -> float:
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return self.after(step - self.warm_up)

    def after(self, step: int) -> float:
        """The factor ``step`` steps after the warm-up."""
        return 1.0


@dataclass(frozen=True)
class ConstantRate(WarmUp):
    """The learning rate itself, after a warm-up.

    >>> [ConstantRate(warm_up=4)(step) for step in (0, 1, 3, 4, 1000)]
    [0.25, 0.5, 1.0, 1.0, 1.0]
    """


@dataclass(frozen=True)
class Cosine(WarmUp):
    """Half a cosine wave from 1 to a floor.

    Args:
        steps: S, from the end of the warm-up to the floor.
        floor: the last factor.

    >>> [round(Cosine(100, floor=0.1)(step), 3) for step in (0, 50, 100, 500)]
    [1.0, 0.55, 0.1, 0.1]
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not 0 <= self.floor <= 1:
            raise _refusal(self, "at least 1 step and a floor from 0 to 1")

    def after(self, step: int) -> float:
        share = min(step / self.steps, 1.0)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Exponential(WarmUp):
    """A factor that falls by the same ratio over every ``steps`` steps.

    Args:
        steps: S.
        factor: the ratio, above 0.

    >>> [Exponential(100, factor=0.25)(step) for step in (0, 50, 100, 200)]
    [1.0, 0.5, 0.25, 0.0625]
    """

    steps: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not 0 < self.factor <= 1:
            raise _refusal(self, "at least 1 step and a factor above 0 and at most 1")

    def after(self, step: int) -> float:
        return self.factor ** (step / self.steps)


@dataclass(frozen=True)
class Stages(WarmUp):
    """A factor for each stage, the last one for ever.

    Args:
        ends: the step at which each stage but the last ends, counted from the end of the warm-up.
        factors: one for each stage, one more than ends.

    >>> [Stages((100, 400), (1.0, 0.3, 0.1))(step) for step in (0, 99, 100, 399, 400)]
    [1.0, 1.0, 0.3, 0.3, 0.1]
    """

    ends: tuple[int, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        rises = all(a < b for a, b in zip((0, *self.ends), self.ends, strict=False))
        if len(self.factors) != len(self.ends) + 1 or not rises or min(self.factors) < 0:
            raise _refusal(self, "rising ends and one factor more than ends, none below 0")

    def after(self, step: int) -> float:
        return self.factors[bisect_right(self.ends, step)]


def _refusal(schedule: Any, expected: str) -> OptionError:
    return OptionError(f"{type(schedule).__name__}: expected {expected}, got {schedule}.")


def factor_at(schedule: Schedule, step: int) -> float:
    """The factor for a step, or an error where it is none."""
    factor = float(schedule(step))
    if not 0 <= factor < math.inf:
        raise OptionError(
            f"schedule: expected a finite factor of at least 0, got {factor} for step {step}."
        )
    return factor


def described(schedule: Schedule | None) -> str | None:
    """A schedule in words that differ where it does; of a function, by its name and its values."""
    if schedule is None or is_dataclass(schedule):
        return None if schedule is None else repr(schedule)
    values = ", ".join(f"{factor_at(schedule, 2**i):.12g}" for i in range(24))
    return f"{getattr(schedule, '__qualname__', type(schedule).__qualname__)}: {values}"
