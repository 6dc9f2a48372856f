"""Judging fits one after another: an error spares the others, and Ctrl-C what is judged."""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from vitools.diagnostics import FitUnion, Grade, Judgement, judge, measure_union
from vitools.errors import VitoolsError, clause, first_words
from vitools.posterior import DrawsPosterior, Estimate, GridPosterior, Posterior, Status
from vitools.reporting.comparison.alike import have_equal_params

NEGLIGIBLE_GAP = 0.1
"""Nats below the best bound at which no fit can be said to miss a mode."""

MOST_UNITED = 1000
"""Numbers in a posterior above which weights of whole draws say nothing of any fit."""


class Judging:
    """What is known of some fits so far.

    Attributes:
        judgements: ``{name: Judgement}``.
        errors: what the judging of the others raised.
        reference: the fit whose moments count as true.
        union: what all fits with a density say together; ``None`` where that is less than two fits, or
            could not be found out, for the reason ``no_union``.
    """

    def __init__(self, fits: Mapping[str, Posterior], num_samples: int, seed: int) -> None:
        self.fits, self.num_samples, self.seed = dict(fits), num_samples, seed
        self.judgements: dict[str, Judgement] = {}
        self.errors: dict[str, Exception] = {}
        self.reference: str | None = None
        self.looked_twice: set[str] = set()
        self.union: FitUnion | None = None
        self.no_union = ""

    def run(self, references: Sequence[str], *, is_named: bool = False) -> None:
        """Judge all, by the moments of the first of ``references`` that is itself trusted, or named."""
        for name in references:
            self._look(name)
            if name in self.judgements and (is_named or self._is_sound(name)):
                self.reference = name
                break
        for name in self.fits:
            if name not in self.judgements and name not in self.errors:
                self._look(name)
        for name in self._behind():
            self._look(name, least_evidence=self._least_evidence())
            self.looked_twice.add(name)
        self._unite()

    def _unite(self) -> None:
        """Multiple importance sampling by the fits whose densities are finite at their own draws."""
        fits = {
            name: self.fits[name]
            for name, found in self.judgements.items()
            if found.bound is not None and math.isfinite(found.bound.value)
        }
        one = next(iter(fits.values()), None)
        if one is None or len(fits) < 2 or not one.problem.drawn:
            return
        if not all(have_equal_params(one, other) for other in fits.values()):
            return  # models that differ have no evidence in common
        if sum(site.shape.numel() for site in one.problem.continuous.values()) > MOST_UNITED:
            return
        try:
            self.union = measure_union(fits, self.num_samples, self.seed)
        except VitoolsError as error:
            self.no_union = clause(error)

    def _is_sound(self, name: str) -> bool:
        """Whether a fit that nobody named can serve as the reference."""
        return self.judgements[name].verdict.grade is Grade.TRUST

    @property
    def settled(self) -> dict[str, Judgement]:
        """The judgements that nothing can change any more, in the order of the fits."""
        open_ones = set(self._behind()) - self.looked_twice
        return {
            name: self.judgements[name]
            for name in self.fits
            if name in self.judgements and name not in open_ones
        }

    def _look(self, name: str, **known: Any) -> None:
        """One judgement, or the error that there is instead."""
        if self.reference is not None and name != self.reference:
            true = self.judgements[self.reference]
            known |= {"reference": true.moments, "reference_draws": true.draws}
        try:
            seed = draw_seed(self.seed, self.fits[name])
            found = judge(self.fits[name], num_samples=self.num_samples, seed=seed, **known)
        except Exception as error:  # a model's or a guide's own errors share no type
            self.errors[name] = error
            self.judgements.pop(name, None)
        else:
            self.judgements[name] = found

    def _behind(self) -> list[str]:
        """Fits not rejected whose bound leaves room for a mode that they miss: to look at again."""
        least = self._least_evidence()
        return [
            name
            for name, found in self.judgements.items()
            if least
            and found.bound
            and found.verdict.grade is not Grade.REJECT
            and least.value - found.bound.value > NEGLIGIBLE_GAP
        ]

    def _least_evidence(self) -> Estimate | None:
        """The best bound: log p(x) is at least that, whatever a fit's own draws can see of it."""
        bounds = [j.bound for j in self.judgements.values()]
        known = [bound for bound in bounds if bound and math.isfinite(bound.value)]
        return max(known, key=lambda bound: bound.value, default=None)


def draw_seed(seed: int, fit: Posterior) -> int:
    """The seed of one fit's draws in a comparison: another for each fit, whatever its name."""
    return seed + zlib.crc32(fit.fingerprint.encode())


def default_references(fits: Mapping[str, Posterior]) -> list[str]:
    """The exact fits, then the samplers whose chains have mixed."""
    exact = [name for name, fit in fits.items() if isinstance(fit, GridPosterior)]
    sampled = [
        name
        for name, fit in fits.items()
        if isinstance(fit, DrawsPosterior) and fit.status is Status.SAMPLED
    ]
    return exact + sampled


def error_words(error: Exception) -> str:
    """An error in one line; one that is not ours by its kind, too."""
    words = str(error) if isinstance(error, VitoolsError) else first_words(error)
    return words if isinstance(error, VitoolsError) else f"{type(error).__name__}: {words}"
