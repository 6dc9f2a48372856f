"""What a model makes of all rows (means, spreads, which values there are), told apart from the rows.

Priors in the units of the data need it. A model that takes it as an argument, ``facts=``, and hands out
``model.facts_of_rows``, states of a row the same whichever other rows there are: engines that see some of the rows
at a time, or have some of them in each process, ask for the facts of all once and give them to every part.

Means and scatters of parts add up (Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance"):

    n = Σ n_i,   m = Σ n_i m_i / n,   S = Σ S_i + Σ n_i (m_i - m)(m_i - m)ᵀ
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitools.errors import DataError

PART = 2**16
"""Rows that are taken in together: of a mapped file no more is in memory."""


@dataclass(frozen=True)
class Facts:
    """Of all rows of a table [N, D].

    Attributes:
        count: N.
        mean: [D].
        scatter: sum of squared deviations from the mean, [D, D].
        values: of columns that name groups, the values there are, in order.
    """

    count: int
    mean: Tensor
    scatter: Tensor
    values: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Tensor, **groups: Tensor) -> Facts:
        """Of the rows of a table, and of columns that name groups.

        >>> facts = Facts.of(torch.tensor([[1.0], [3.0]]), group=torch.tensor([7, 5]))
        >>> facts.mean.tolist(), facts.covariance.tolist(), facts.values["group"].tolist()
        ([2.0], [[2.0]], [5, 7])
        """
        parts = []
        for rows in table.split(PART):
            mean = rows.mean(0)
            parts.append(cls(len(rows), mean, (rows - mean).mT @ (rows - mean)))
        whole = cls.joined(parts)
        values = {name: torch.unique(column) for name, column in groups.items()}
        return cls(whole.count, whole.mean, whole.scatter, values)

    @classmethod
    def joined(cls, parts: Sequence[Facts]) -> Facts:
        """Of the rows of all parts."""
        count = sum(part.count for part in parts)
        mean = torch.stack([part.count / count * part.mean for part in parts]).sum(0)
        own = torch.stack([part.scatter for part in parts]).sum(0)
        away = torch.stack([part.count**0.5 * (part.mean - mean) for part in parts])
        values = {
            name: torch.unique(torch.cat([part.values[name] for part in parts]))
            for name in parts[0].values
        }
        return cls(count, mean, own + away.mT @ away, values)

    @property
    def covariance(self) -> Tensor:
        """[D, D], over N - 1."""
        return self.scatter / (self.count - 1)

    def spread(self, columns: Sequence[str]) -> Tensor:
        """Standard deviation of each column, [D]; those that do not vary are refused by name."""
        if self.count < 2:
            raise DataError(f"{columns[0]}: expected at least 2 rows, got {self.count}.")
        spread = self.covariance.diagonal().sqrt()
        for name, value in zip(columns, spread.tolist(), strict=True):
            if not value > 0:
                raise DataError(f"{name}: all values are equal, and so say nothing. Leave it out.")
        return spread
