"""Judging fits one after another, or side by side: an error spares the others, and Ctrl-C what is judged."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vitools.diagnostics import FitUnion, Grade, Judgement, judge, measure_union
from vitools.diagnostics.verdict.judgement import against_evidence
from vitools.errors import VitoolsError, clause, first_words
from vitools.jobs import each
from vitools.posterior import DrawsPosterior, GridPosterior, Posterior, Status
from vitools.reporting.comparison.alike import have_equal_params

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

    def __init__(
        self, fits: Mapping[str, Posterior], num_samples: int, seed: int, jobs: int | None = None
    ) -> None:
        self.jobs = jobs
        self.fits, self.num_samples, self.seed = dict(fits), num_samples, seed
        self.judgements: dict[str, Judgement] = {}
        self.errors: dict[str, Exception] = {}
        self.reference: str | None = None
        self.union: FitUnion | None = None
        self.no_union = ""

    def run(self, references: Sequence[str], *, is_named: bool = False) -> None:
        """Judge all, by the moments of the first of ``references`` that is itself trusted, or named."""
        for name in references:
            self._look_at([name])
            if name in self.judgements and (is_named or self._is_sound(name)):
                self.reference = name
                break
        missing = [n for n in self.fits if n not in self.judgements and n not in self.errors]
        self._look_at(missing)
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
        """The judgements in the order of the fits, in the light of the best bound among them all.

        log p(x) is at least that, whatever a fit's own draws can see of it.
        """
        bounds = [j.bound for j in self.judgements.values()]
        known = [bound for bound in bounds if bound and math.isfinite(bound.value)]
        least = max(known, key=lambda bound: bound.value, default=None)
        return {
            name: against_evidence(fit, self.judgements[name], least)
            for name, fit in self.fits.items()
            if name in self.judgements
        }

    def _look_at(self, names: Sequence[str]) -> None:
        """A judgement of each, or the error that there is instead."""
        known: dict[str, Any] = {}
        if self.reference is not None:
            true = self.judgements[self.reference]
            known = {"reference": true.moments, "reference_draws": true.draws}
        look = partial(judged, num_samples=self.num_samples, seed=self.seed, **known)
        asked = [(name, self.fits[name]) for name in names]
        found: dict[str, Judgement | Exception] = {}
        try:
            for (name, _), one in each(look, asked, self.jobs):
                found[name] = one
        finally:  # in the order of the fits, as far as Ctrl-C let them
            for name in names:
                if name not in found:
                    continue
                one = found[name]
                if isinstance(one, Judgement):
                    self.judgements[name] = one
                else:
                    self.errors[name] = one


def judged(named: tuple[str, Posterior], **options: Any) -> Judgement | Exception:
    """The judgement of a fit, or what was raised instead."""
    try:
        return judge(named[1], **options)
    except Exception as error:  # a model's or a guide's own errors share no type
        return error


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
