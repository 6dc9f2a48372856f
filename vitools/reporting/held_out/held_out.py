"""Models with encoders side by side, by what they make of data none of them was trained on.

Such models differ in their latents and weights, so that there are no common moments to compare and
no common posterior to approximate. What they have in common is the data: each gives every held-out
datum a lower bound on log p(x), and those differ datum by datum,

    behind_f = mean_n (bound_best,n - bound_f,n) ± sd / √N

which is known much better than either mean: what makes one datum harder than another cancels.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from torch import Tensor

from vitools._version import __version__
from vitools.errors import DataError, OptionError
from vitools.files.atomic import atomic_path
from vitools.posterior import Estimate, Posterior
from vitools.reporting.terminal import Cell, estimate_words, layout, paragraph, seconds_words


@dataclass(frozen=True)
class HeldOutFit:
    """One fit on held-out data; figures are means over data, in nats.

    Attributes:
        fit: how it was trained.
        bounds: importance-weighted bound on log p(x) of each datum, ``[num_data]``.
        elbo, reconstruction: the latter E_q[log p(x | z)].
        kls: by latent site, the KL of q from the prior; they sum to ``reconstruction - elbo``.
        active: by latent site, how many of its units move with the data, and of how many.
        information: of the latents on the datum; at most the log of the number of data.
        khat_above: share of the data whose importance weights are too heavy-tailed to believe.
        num_parameters: weights of all networks.
    """

    fit: Posterior
    bounds: Tensor
    elbo: Estimate
    reconstruction: Estimate
    kls: dict[str, Estimate]
    active: dict[str, tuple[int, int]]
    information: Estimate
    khat_above: float
    num_parameters: int

    @property
    def bound(self) -> Estimate:
        """The mean importance-weighted bound."""
        return Estimate.of_mean(self.bounds)

    @property
    def kl(self) -> Estimate:
        """The KL of all layers; its error is at most the sum of theirs."""
        terms = self.kls.values()
        return Estimate(sum(k.value for k in terms), sum(k.standard_error for k in terms))


@dataclass(frozen=True)
class HeldOutComparison:
    """Fits by name on the same held-out data; ``print`` it, or read its ``table``.

    Attributes:
        rows: what the data are, in the plural ("images").
        num_samples: draws for each importance-weighted bound.
        khat_threshold: of as many draws.
    """

    fits: Mapping[str, HeldOutFit]
    rows: str
    num_samples: int
    khat_threshold: float

    def __post_init__(self) -> None:
        if not self.fits:
            raise OptionError("expected at least one fit to compare, got none.")
        sizes = {name: len(fit.bounds) for name, fit in self.fits.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(f"expected bounds of the same data from each fit, got {sizes}.")

    @property
    def num_data(self) -> int:
        return len(next(iter(self.fits.values())).bounds)

    @property
    def is_usable(self) -> bool:
        """Whether any fit came to a good end."""
        return any(fit.fit.status.is_good for fit in self.fits.values())

    @property
    def best(self) -> str:
        """The fit of the highest importance-weighted bound."""
        return max(self.fits, key=lambda name: self.fits[name].bound.value)

    def behind(self, name: str) -> Estimate:
        """How far a fit's bound is below that of the best, by the differences of each datum."""
        return Estimate.of_mean(self.fits[self.best].bounds - self.fits[name].bounds)

    @property
    def table(self) -> pandas.DataFrame:
        """A row per fit; an estimate's standard error is in ``…_se``, a layer's figure in ``…_site``."""
        found = []
        for name, fit in self.fits.items():
            estimates = {
                "bound": fit.bound,
                "behind": self.behind(name),
                "elbo": fit.elbo,
                "reconstruction": fit.reconstruction,
                "kl": fit.kl,
                **{f"kl_{site}": kl for site, kl in fit.kls.items()},
                "information": fit.information,
            }
            row: dict[str, Any] = {"fit": name}
            for column, estimate in estimates.items():
                row |= {column: estimate.value, f"{column}_se": estimate.standard_error}
            for site, (count, size) in fit.active.items():
                row |= {f"active_{site}": count, f"units_{site}": size}
            found.append(
                row
                | {
                    "khat_above": fit.khat_above,
                    "parameters": fit.num_parameters,
                    "seconds": fit.fit.seconds,
                    "status": fit.fit.status.label,
                    "detail": fit.fit.detail,
                }
            )
        return pandas.DataFrame(found).set_index("fit")

    def to_csv(self, path: str | Path) -> None:
        """Write :attr:`table`; an existing file is replaced only by a whole new one."""
        with atomic_path(path) as temporary:
            self.table.to_csv(temporary)

    def to_json(self, path: str | Path) -> None:
        """Write :attr:`table` with what it was made from; what a fit has not is left out."""
        fits = {
            str(name): {k: v for k, v in row.items() if not _is_missing(v)}
            for name, row in self.table.astype(object).iterrows()
        }
        record = {
            "vitools": __version__,
            "rows": self.rows,
            "num_data": self.num_data,
            "num_samples": self.num_samples,
            "khat_threshold": self.khat_threshold,
            "best": self.best,
            "fits": fits,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        with atomic_path(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def __str__(self) -> str:
        first: list[list[Cell]] = [["fit", "bound", *self._heads, "seconds", "status"]]
        second: list[list[Cell]] = [["", "reconstruction", "KL", "active", "information"]]
        for name, fit in self.fits.items():
            first.append(
                [
                    name,
                    estimate_words(fit.bound),
                    *[self._standing(name) for _ in self._heads],
                    seconds_words(fit.fit.seconds),
                    fit.fit.status.label,
                ]
            )
            second.append(
                [
                    name,
                    estimate_words(fit.reconstruction),
                    layers({site: f"{kl.value:.2f}" for site, kl in fit.kls.items()}),
                    layers({site: f"{n}/{size}" for site, (n, size) in fit.active.items()}),
                    estimate_words(fit.information),
                ]
            )
        notes = [line for note in self.notes() for line in paragraph(note)]
        return "\n".join([*layout(first), "", *layout(second), "", *notes])

    @property
    def _heads(self) -> list[str]:
        """Of the columns that rank fits: none where there is one alone."""
        return ["behind the best"] if len(self.fits) > 1 else []

    def _standing(self, name: str) -> Cell:
        return "best" if name == self.best else estimate_words(self.behind(name))

    def notes(self) -> list[str]:
        """What the figures are, a paragraph each."""
        above = [
            f"{name} {fit.khat_above:.0%}" for name, fit in self.fits.items() if fit.khat_above
        ]
        notes = [
            f"bound: on log p(x), importance-weighted by {self.num_samples} draws of each fit; mean "
            f"of {self.num_data} held-out {self.rows} in nats, ± its standard error; higher is "
            "better",
            *(
                f"{head}: mean difference of the bounds on the same {self.rows}"
                for head in self._heads
            ),
            "reconstruction - KL = ELBO; KL and active, the units whose mean moves with the datum, "
            "by layer from the data up; information: of the latents on the datum, at most "
            f"log {self.num_data} = {math.log(self.num_data):.2f}",
        ]
        if above:
            notes.append(
                f"k̂ above {self.khat_threshold:.2f}, where a bound is not to be relied on: "
                f"{', '.join(above)} of the {self.rows}"
            )
        return notes


def layers(figures: Mapping[str, str]) -> str:
    """A figure of each layer, the one next to the data first.

    >>> layers({"z": "2 of 2"}), layers({"z2": "0.4", "z1": "3.1"})
    ('2 of 2', '3.1 + 0.4')
    """
    return " + ".join(figure for _, figure in sorted(figures.items()))


def _is_missing(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
