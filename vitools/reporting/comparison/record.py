"""The record of a comparison: the fits, what the judge said of each, and the table of both.

Text, JSON, page and pictures are views of it.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import pandas

from vitools.diagnostics import FitUnion, Grade, Judgement
from vitools.posterior import Estimate, GridPosterior, Posterior
from vitools.problem import Problem

UNJUDGED = "not judged"


@dataclass(frozen=True)
class Unjudged:
    """A fit that could not be judged, and why."""

    fit: Posterior
    reason: str


@dataclass(frozen=True)
class JudgedFits:
    """Fits, the figures of each, and what follows from them all.

    Attributes:
        fits: ``{name: posterior}``, those that were judged.
        judgements: ``{name: Judgement}``: all figures, and the draws they come from.
        reference: the name of the fit whose moments count as true, or ``None``.
        num_samples, seed: of the draws.
        unjudged: the other fits, each with the reason: what its judging raised, or Ctrl-C.
        union: what all fits with a density say together
            (:class:`~vitools.diagnostics.evidence.union.FitUnion`); ``None`` where that is less than two
            fits or the model is too large for it, or it failed for the reason ``no_union``.
    """

    fits: dict[str, Posterior]
    judgements: dict[str, Judgement]
    reference: str | None
    num_samples: int
    seed: int
    unjudged: dict[str, Unjudged] = field(default_factory=dict)
    union: FitUnion | None = None
    no_union: str = ""

    @property
    def problem(self) -> Problem:
        """What was fitted."""
        return next(iter(self.fits.values())).problem

    @property
    def log_evidence(self) -> Estimate | None:
        """log p(x), where one of the fits is exact."""
        exact = (fit for fit in self.fits.values() if isinstance(fit, GridPosterior))
        return next((fit.log_evidence for fit in exact), None)

    @cached_property
    def missed(self) -> dict[str, Estimate]:
        """The share of the posterior's mass that each fit misses, as all fits together have it.

        Empty where they do not cover the posterior themselves, and where the model's sites are not
        identified: one of several equal modes is enough there.
        """
        union = self.union
        if union is None or not union.is_usable:
            return {}
        is_identified = self.problem.invariants is None
        return union.missed if is_identified else {}

    @property
    def best(self) -> str:
        """The best-judged fit: by verdict, then by bound; the reference only if no other will do."""

        def order(name: str) -> tuple[int, bool, float]:
            judgement = self.judgements[name]
            found = judgement.bound.value if judgement.bound else -math.inf
            return judgement.verdict.grade.rank, name == self.reference, -found

        return min(self.fits, key=order)

    @property
    def is_usable(self) -> bool:
        """Whether any fit is fit for use, be it with care."""
        return any(j.verdict.grade is not Grade.REJECT for j in self.judgements.values())

    @property
    def table(self) -> pandas.DataFrame:
        """A row per fit, a column per figure, NaN where a figure does not exist.

        Columns: ``bound``, ``khat``, ``mean_error`` (in reference sds), ``sd_ratio``, each with
        its standard error in ``…_se`` (0 where exact); ``mean_error_at``, ``sd_ratio_at``, the
        worst entries; ``khat_limit``, up to where k̂ is usable; ``gap``, log p(x) less the bound, where log p(x) is known; ``seconds``;
        ``status``, ``detail``; ``verdict``, ``reason``, ``advice``. Fits that were not judged
        come last.
        """
        rows = []
        for name, judgement in self.judgements.items():
            accuracy, fit = judgement.accuracy, self.fits[name]
            row: dict[str, object] = {"fit": name}
            figures = {
                "bound": judgement.bound,
                "khat": judgement.khat,
                "mean_error": accuracy.mean_error if accuracy else None,
                "sd_ratio": accuracy.sd_ratio if accuracy else None,
            }
            for column, figure in figures.items():
                row[column] = figure.value if figure else math.nan
                row[f"{column}_se"] = figure.standard_error if figure else math.nan
            row["khat_limit"] = judgement.khat_limit
            row["mean_error_at"] = accuracy.mean_error_at if accuracy else ""
            row["sd_ratio_at"] = accuracy.sd_ratio_at if accuracy else ""
            evidence, lower = self.log_evidence, judgement.bound
            row["gap"] = evidence.value - lower.value if evidence and lower else math.nan
            row |= {
                "seconds": fit.seconds,
                "status": fit.status.label,
                "detail": fit.detail,
                "verdict": self.verdict_words(name),
                "reason": judgement.verdict.reason,
                "advice": judgement.verdict.advice,
            }
            rows.append(row)
        for name, other in self.unjudged.items():
            seconds, status = other.fit.seconds, other.fit.status.label
            known = {"seconds": seconds, "status": status, "detail": other.fit.detail}
            words = {"verdict": UNJUDGED, "reason": other.reason}
            texts = ("mean_error_at", "sd_ratio_at", "advice")
            blank = {column: "" if column in texts else math.nan for column in rows[0]}
            rows.append({**blank, "fit": name, **known, **words})
        return pandas.DataFrame(rows).set_index("fit")

    def verdict_words(self, name: str) -> str:
        """The grade of a fit, or ``"reference"`` for a sound reference."""
        verdict = self.judgements[name].verdict
        is_sound_reference = name == self.reference and verdict.grade is not Grade.REJECT
        return "reference" if is_sound_reference else verdict.grade.value
