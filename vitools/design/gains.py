"""What :func:`~vitools.design.expected_information_gain` returns: an estimate for each design."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitools.posterior import Estimate

MOST_ROWS = 20


@dataclass(frozen=True, eq=False)
class InformationGains:
    """Expected information gains in nats, one for each candidate.

    Attributes:
        designs: the candidates, each as the model was called with it.
        estimates: the gain of each with its standard error and the side that it bounds.
        method: by which they were found.
    """

    designs: list[Any]
    estimates: list[Estimate]
    method: str

    def __len__(self) -> int:
        return len(self.estimates)

    def __getitem__(self, number: int) -> Estimate:
        return self.estimates[number]

    def __iter__(self) -> Iterator[Estimate]:
        return iter(self.estimates)

    @property
    def values(self) -> Tensor:
        """``[C]``."""
        return torch.tensor([e.value for e in self.estimates], dtype=torch.float64)

    @property
    def standard_errors(self) -> Tensor:
        """``[C]``."""
        return torch.tensor([e.standard_error for e in self.estimates], dtype=torch.float64)

    @property
    def best(self) -> int:
        """Number of the candidate with the largest gain."""
        return int(self.values.nan_to_num(nan=-torch.inf).argmax())

    @property
    def design(self) -> Any:
        """The best candidate."""
        return self.designs[self.best]

    def __str__(self) -> str:
        order = self.values.argsort(descending=True).tolist()
        lines = [f"expected information gain in nats, method '{self.method}', the best first"]
        lines += [f"{described(self.designs[i])}: {self.estimates[i]}" for i in order[:MOST_ROWS]]
        rest = len(order) - MOST_ROWS
        return "\n".join(lines + ([f"… {rest} more"] if rest > 0 else []))


def described(design: Any) -> str:
    """A design in a few letters."""
    if isinstance(design, Tensor):
        numbers = design.flatten().tolist()
        shown = ", ".join(f"{x:.4g}" for x in numbers[:6])
        return shown + (", …" if len(numbers) > 6 else "")
    return " ".join(repr(design).split())[:60]
