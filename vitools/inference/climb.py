"""One call: climb from the cheapest engine to the surest until the judge is content."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vitools.diagnostics import Grade, judge
from vitools.engines.cavi.nested.choice import check_nested
from vitools.engines.progress import Listener, Progress, ProgressCallback, listener
from vitools.errors import NumericalError, OptionError, VitoolsError
from vitools.inference.known import Known
from vitools.inference.rungs import RUNGS, Rung
from vitools.posterior import Attempt, Ladder, Posterior, Status
from vitools.posterior.ladder import NO_ANSWER, NOT_JUDGED
from vitools.problem import Problem, check_problem
from vitools.problem.sites import nearest
from vitools.reporting.comparison.judging import error_words
from vitools.whole_numbers import check_seed

UNTIL = {"trust": Grade.TRUST, "care": Grade.CARE}


def infer(
    problem: Problem,
    *,
    until: str = "trust",
    max_seconds: float | None = None,
    nested: Sequence[str] | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Posterior:
    """A posterior that the judge trusts, by the first engine that gives one.

    The rungs: ``exact`` for up to two continuous numbers; coordinate ascent with the factors of its own
    choice, with discrete latents of one plate in one factor, and nested in the scalar on which its
    weights hang most; one Gaussian over all latents by stochastic gradients (independent factors above
    300 numbers); where a scan finds several modes, a Gaussian at each and their mixture; a flow, up to 50 numbers; the mixture of all fits so far; ``nuts``. Each starts from the
    best fit so far, unless the judge rejected that. Fits are judged as :func:`~vitools.judge` does, by
    their own draws, a scan for modes and the evidence of earlier fits; ``nuts`` by its chains.

    A rung that fails is recorded with its reason, and the next one is tried. Ctrl-C ends the climb as
    well, with the best fit so far.

    Args:
        until: ``"trust"``; or ``"care"``, to end with the first fit that can be used with care.
        max_seconds: no rung begins after that, and an engine that iterates ends then, as by Ctrl-C. (The
            judge is not cut short, nor is an engine before its first report.)
        nested: scalars that coordinate ascent nests from the first, as of :func:`~vitools.cavi`.
        seed: of every fit and of the judge's draws. The same seed gives the same answer on one machine;
            with ``max_seconds`` how far the climb gets depends on the machine's pace, and with it the
            answer.
        progress: as of the engines, told by the rung that is at work (``progress.engine``).

    Returns:
        The fit of the best grade (of those a sampler's, else that of the highest bound), of whichever
        kind its engine returns. Its ``ladder`` (:class:`~vitools.posterior.ladder.Ladder`) has all that was
        tried, what the judge said of each and why the climb ended: ``ladder.text``, ``ladder.table``.

    Raises:
        VitoolsError: no rung gave a fit; the reasons of all.
        KeyboardInterrupt: Ctrl-C before there was a fit.

    Example:
        >>> import torch
        >>> from vitools import Problem, infer
        >>> from vitools.models import coin
        >>> fit = infer(Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]).double()))
        >>> fit.engine, fit.ladder.attempt.verdict
        ('exact', 'trust')
    """
    told = listener(progress)
    if not isinstance(until, str) or until not in UNTIL:
        raise OptionError(
            f"until: expected one of {', '.join(map(repr, UNTIL))}, got {until!r}.{nearest(str(until), UNTIL)}"
        )
    _check_seconds(max_seconds)
    check_seed(seed)
    check_problem(problem, "infer()")
    if nested is not None:
        if isinstance(nested, str) or not isinstance(nested, Sequence):
            raise OptionError(
                f"nested: expected a list, such as nested=['tau'], or None, got {nested!r}."
            )
        check_nested(problem, nested)
    clock = Clock(math.inf if max_seconds is None else max_seconds)
    climb = Climb(Known(problem, nested), clock, seed, told)
    stopped = climb.until(RUNGS, UNTIL[until])
    return climb.answer(stopped)


def _check_seconds(seconds: float | None) -> None:
    if seconds is None:
        return
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not seconds > 0:
        raise OptionError(
            f"max_seconds: expected a number of seconds above 0, or None for no limit, got {seconds!r}."
        )


class Clock:
    """Time since the climb began, against its limit."""

    def __init__(self, limit: float) -> None:
        self.began, self.limit = time.perf_counter(), limit
        self.has_cut_short = False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @property
    def is_over(self) -> bool:
        return self.seconds >= self.limit

    def listen(self, told: Listener | None, label: str) -> Listener:
        """A listener that ends the run when time is over, in the way of Ctrl-C."""

        def hear(progress: Progress) -> None:
            if told is not None:
                told(replace(progress, engine=label))
            if self.is_over:
                self.has_cut_short = True
                raise KeyboardInterrupt

        return hear


@dataclass
class Climb:
    """The state of a run of :func:`infer`."""

    known: Known
    clock: Clock
    seed: int
    told: Listener | None
    attempts: list[Attempt] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    is_interrupted: bool = False

    def until(self, rungs: Sequence[Rung], wanted: Grade) -> str:
        """Up the rungs; why it ended, in words."""
        for rung in rungs:
            if self.clock.is_over and self.known.fits:
                return self._out_of_time(f"before {rung.label}")
            reason = rung.left_out(self.known)
            if reason:
                self.left_out[rung.label] = reason
                continue
            try:
                self._try(rung)
            except KeyboardInterrupt:
                if self.clock.has_cut_short:
                    return self._out_of_time(f"during {rung.label}")
                self.is_interrupted = True
                return f"interrupted during {rung.label}"
            found = self.known.judgements.get(rung.label)
            if found is not None and found.verdict.grade.rank <= wanted.rank:
                return f"the judge says '{found.verdict.grade.value}'"
        return "no rung is left"

    def _out_of_time(self, where: str) -> str:
        return f"the {self.clock.limit:g} seconds were over {where}"

    def _try(self, rung: Rung) -> None:
        """One fit and its judgement; raises KeyboardInterrupt when the climb is to end."""
        began = time.perf_counter()
        known, label = self.known, rung.label

        def note(verdict: str, reason: str, fit: Posterior | None = None) -> None:
            seconds = time.perf_counter() - began
            found = known.judgements.get(label)
            self.attempts.append(
                Attempt(
                    label,
                    verdict,
                    reason,
                    found.verdict.advice if found else "",
                    seconds,
                    found.bound if found else None,
                    found.khat if found else None,
                )
            )

        try:
            fit = rung.run(known, seed=self.seed, progress=self.clock.listen(self.told, label))
        except KeyboardInterrupt:
            note(NO_ANSWER, "it was ended before its first whole step")
            raise
        except Exception as error:  # a model's or a guide's own errors share no type
            self.errors.append(error)
            note(NO_ANSWER, error_words(error))
            return
        known.fits[label] = fit
        is_cut = fit.status is Status.INTERRUPTED
        if is_cut and (not self.clock.has_cut_short or known.start is not None):
            note(NOT_JUDGED, f"{fit.status.label} ({fit.detail})")
            raise KeyboardInterrupt
        try:
            evidence = known.least_evidence
            known.judgements[label] = found = judge(fit, seed=self.seed, least_evidence=evidence)
        except KeyboardInterrupt:
            note(NOT_JUDGED, "interrupted before it was judged")
            raise
        except Exception as error:  # as above, at values that the engine did not try
            self.errors.append(error)
            note(NOT_JUDGED, error_words(error))
        else:
            note(found.verdict.grade.value, found.verdict.reason)
        self._adopt_parameters(fit)
        if is_cut:
            raise KeyboardInterrupt

    def _adopt_parameters(self, fit: Posterior) -> None:
        """Values of the model's own parameters that a fit has trained: later rungs are of that model."""
        problem = self.known.problem
        if problem.free_params and not problem.has_given_params and fit.problem.has_given_params:
            self.known.problem = fit.problem

    def answer(self, stopped: str) -> Posterior:
        """The best fit, with the record of the climb."""
        known = self.known
        chosen = known.best or next(reversed(known.fits), None)
        if chosen is None:
            if self.errors:
                raise self._no_answer()
            raise KeyboardInterrupt
        fit = copy.copy(known.fits[chosen])
        fit.ladder = Ladder(
            tuple(self.attempts), chosen, stopped, self.left_out, self.is_interrupted
        )
        fit.detail = "; ".join(filter(None, [fit.detail, f"infer kept {fit.ladder.words}"]))
        return fit

    def _no_answer(self) -> Exception:
        unexpected = [error for error in self.errors if not isinstance(error, VitoolsError)]
        if unexpected:
            return unexpected[0]  # with its traceback, which says where
        reasons = "; ".join(f"{each.method}: {each.reason.rstrip('.')}" for each in self.attempts)
        has_failed = any(isinstance(error, NumericalError) for error in self.errors)
        kind = NumericalError if has_failed else OptionError
        return kind(f"infer: no engine gave a fit of model '{self.known.problem.name}': {reasons}")
