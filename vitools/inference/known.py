"""What is known of a problem on the way up the ladder: its fits, and what the judge said of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from vitools.diagnostics import Grade, Judgement, Mode, SiteKhat
from vitools.diagnostics.modes.missed import Scan, scan_for
from vitools.posterior import DrawsPosterior, Estimate, Posterior
from vitools.problem import Problem

SCANNED = 1000
"""Draws of a fit beside which modes are looked for."""


@dataclass
class Known:
    """Fits by the names of their rungs.

    Attributes:
        problem: what the next rung is to fit; once a fit has trained the model's own parameters, with
            their values in place.
        nested: scalars that coordinate ascent nests; its own choice if ``None``.
        scan: for modes, made where no judgement has one.
    """

    problem: Problem
    nested: Sequence[str] | None = None
    fits: dict[str, Posterior] = field(default_factory=dict)
    judgements: dict[str, Judgement] = field(default_factory=dict)
    scan: Scan | None = None

    def grade(self, name: str) -> Grade:
        """What the judge thinks of a fit."""
        return self.judgements[name].verdict.grade

    @property
    def best(self) -> str | None:
        """By grade; then a sampler, whose complaint is of its chains alone; then the highest bound."""

        def order(name: str) -> tuple[int, bool, float]:
            bound = self.judgements[name].bound
            is_drawn = isinstance(self.fits[name], DrawsPosterior)
            return self.grade(name).rank, not is_drawn, -(bound.value if bound else -math.inf)

        return min(self.judgements, key=order, default=None)

    @property
    def start(self) -> Posterior | None:
        """Where to begin: at the best fit, unless it was rejected."""
        best = self.best
        return None if best is None or self.grade(best) is Grade.REJECT else self.fits[best]

    @property
    def scored(self) -> dict[str, Posterior]:
        """The judged fits with a density that is finite at their own draws."""
        return {
            name: self.fits[name]
            for name, found in self.judgements.items()
            if found.bound is not None and math.isfinite(found.bound.value)
        }

    @property
    def least_evidence(self) -> Estimate | None:
        """The best bound: log p(x) is at least that."""
        bounds = (self.judgements[name].bound for name in self.scored)
        return max(filter(None, bounds), key=lambda bound: bound.value, default=None)

    @property
    def ascents(self) -> dict[str, Posterior]:
        """The judged fits by coordinate ascent."""
        return {name: fit for name, fit in self.scored.items() if fit.engine == "cavi"}

    @property
    def has_ascended(self) -> bool:
        return bool(self.ascents)

    @property
    def site_khats(self) -> dict[str, SiteKhat]:
        """Of coordinate ascent's fit with the highest bound."""
        found = [self.judgements[name] for name in self.ascents]
        best = max(found, key=lambda j: j.bound.value if j.bound else -math.inf, default=None)
        return best.site_khats if best else {}

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Those of the last scan, whether or not fits know them: one may know several and hold none well.

        The judge scans for no fit that it rejects anyway, and where it has rejected all, this does.
        """
        scans = [found.scan for found in self.judgements.values() if found.scan]
        if scans:
            return scans[-1].modes
        last = next(reversed(self.scored), None)
        if last is None or not self.problem.continuous:
            return ()
        if self.scan is None:
            fit = self.fits[last]
            self.scan = scan_for(fit, fit.sample(SCANNED))
        return self.scan.modes
