"""Small records every engine fills in: an estimate, a status with advice, a history."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.problem.sequences import numbered
from vitools.problem.sites import nearest


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; 0 means exact.

    Attributes:
        standard_error: 0 where the value is exact, infinite where nothing tells it.
        side: of a bound, on which side of the number sought its expectation lies; empty for others.

    Example:
        >>> print(Estimate(-3456.213, 0.021), "|", Estimate(-12.79))
        -3456.21 ± 0.02 | -12.79 (exact)
        >>> print(Estimate(0.312, 0.021, "lower"))
        0.31 ± 0.02 (lower bound)
    """

    value: float
    standard_error: float = 0.0
    side: Literal["", "lower", "upper"] = ""

    @classmethod
    def of_mean(cls, terms: Tensor, side: Literal["", "lower", "upper"] = "") -> "Estimate":
        """The mean of independent terms with its Monte Carlo standard error."""
        terms = terms.detach().double()
        if terms.numel() < 2:
            return cls(float(terms.mean()), math.inf, side)
        return cls(float(terms.mean()), float(terms.std() / math.sqrt(terms.numel())), side)

    @property
    def is_exact(self) -> bool:
        return self.standard_error == 0.0

    def __str__(self) -> str:
        return self._number() + (f" ({self.side} bound)" if self.side else "")

    def _number(self) -> str:
        if self.is_exact:
            return f"{self.value:.2f}" + ("" if self.side else " (exact)")
        if not math.isfinite(self.standard_error):
            return f"{self.value:.2f} ± ?"
        if self.standard_error < 1e-8:
            return f"{self.value:.8f} ± {self.standard_error:.0e}"
        magnitude = math.floor(math.log10(self.standard_error))
        digits = -magnitude if magnitude < -2 else min(2, max(0, 1 - magnitude))
        return f"{self.value:.{digits}f} ± {self.standard_error:.{digits}f}"


class Status(Enum):
    """How a fit ended. ``status.advice`` says in one sentence what to make of it."""

    CONVERGED = ("converged", "The stopping rule was met; compare() says whether to trust the fit.")
    STOPPED_AT_LIMIT = (
        "stopped at limit",
        "The step limit, or the end of a schedule, came before convergence; raise it, or treat the "
        "numbers as provisional.",
    )
    INTERRUPTED = (
        "interrupted",
        "Stopped by hand; the state reached so far is kept and can be inspected.",
    )
    DIVERGED = (
        "diverged",
        "The numbers left the finite range; lower the learning rate or rescale the model.",
    )
    SAMPLED = ("sampled", "The chains agree and are long enough to serve as a reference.")
    NOT_MIXED = (
        "not mixed",
        "The chains disagree, are too short or diverge; do not use them as a reference: "
        "run longer, or reparameterise.",
    )
    EXACT = ("exact", "Computed without approximation beyond the stated quadrature error.")

    def __init__(self, label: str, advice: str) -> None:
        self.label = label
        self.advice = advice

    @property
    def is_good(self) -> bool:
        """Whether the engine itself has no complaint."""
        return self in (Status.CONVERGED, Status.SAMPLED, Status.EXACT)


@dataclass(repr=False)
class History:
    """What was recorded while fitting: ``elbo`` (higher is better) and seconds since the start.

    Attributes:
        steps: after which the bounds were recorded.
    """

    steps: list[int] = field(default_factory=list)
    elbo: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[float, float]]) -> "History":
        """From the bound and the seconds after each step, the first of which is number 1.

        Args:
            rows: the bound and the seconds after each step.
        """
        steps = list(range(1, len(rows) + 1))
        return cls(steps, [elbo for elbo, _ in rows], [seconds for _, seconds in rows])

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        last = f", the last bound {self.elbo[-1]:.6g}" if self.elbo else ""
        return f"History of {len(self)} steps{last}; columns steps, elbo, seconds"

    def tensors(self) -> dict[str, Tensor]:
        """Columns as tensors, for saving and plotting."""
        return {
            "steps": torch.tensor(self.steps, dtype=torch.int64),
            "elbo": torch.tensor(self.elbo, dtype=torch.float64),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, columns: dict[str, Tensor]) -> "History":
        """The inverse of :meth:`tensors`.

        Args:
            columns: what :meth:`tensors` gave.
        """
        return cls(columns["steps"].tolist(), columns["elbo"].tolist(), columns["seconds"].tolist())


class BySite(dict[str, Tensor]):
    """A dict of sites in which a mistyped name meets an explanation.

    The steps of a loop, x_0, x_1, … (or x0, x1, …), are one tensor under the name x as well, step by step along a
    first dim.

    Attributes:
        summed_out: discrete latents, which have probabilities instead.
    """

    summed_out: tuple[str, ...] = ()

    def __missing__(self, name: object) -> Tensor:
        if name in self.summed_out:
            raise OptionError(
                f"site {name!r} is a discrete latent that is summed out. Its probabilities are "
                f"fit.problem.discrete_marginals(fit.sample(n))[{name!r}], averaged over draws, or "
                f"fit.marginal({name!r}) where the fit has a factor of it."
            )
        families = numbered(self)
        for prefix in (f"{name}_", f"{name}"):
            steps = [self[step] for step in families.get(prefix, {}).values()]
            if len(steps) > 1 and all(step.shape == steps[0].shape for step in steps):
                return torch.stack(steps)
        raise OptionError(
            f"no latent site {name!r} here (sites: {', '.join(self)}).{nearest(str(name), self)}"
        )


def check_count(num_samples: int) -> None:
    """Refuse a number of draws that is no positive integer."""
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise OptionError(f"expected a positive number of draws, got {num_samples!r}.")


def shorten(name: str, limit: int = 56) -> str:
    """``name`` with its middle left out where it is long."""
    half = limit // 2 - 1
    return name if len(name) <= limit else f"{name[:half]}…{name[-half:]}"
