"""Preflight: all that is known to be wrong with a guide for a problem before its first step."""

import warnings
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from vitools.engines.preflight.guide_trial import QUESTIONS, GuideTrial
from vitools.errors import OptionError, VitoolsError, VitoolsWarning
from vitools.isolation import isolated, seeded
from vitools.posterior import Posterior
from vitools.problem import Problem, check_problem

WIDTH = 80


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    Attributes:
        name: e.g. ``"shapes"``.
        question: in words.
        found: what was found, what is wrong and what to do; ``None`` where an earlier error leaves
            nothing to ask.
        complaint: the error or warning, if there is one.
    """

    name: str
    question: str
    found: str | None
    complaint: VitoolsError | VitoolsWarning | None = None

    @property
    def verdict(self) -> str:
        """``"ok"``, ``"warning"``, ``"wrong"`` or ``"not asked"``."""
        if self.complaint is not None:
            return "warning" if isinstance(self.complaint, VitoolsWarning) else "wrong"
        return "not asked" if self.found is None else "ok"


@dataclass(frozen=True)
class Preflight:
    """The answers of :func:`preflight`; ``print`` shows them.

    Attributes:
        title: of guide and model.
        checks: in the order of asking.
        guide: the guide asked about, made if a class was given.
        wide: latents that it draws from more than their support.
        points: latents of which it is a point estimate.
    """

    title: str
    checks: tuple[Check, ...]
    guide: Any
    wide: tuple[str, ...] = ()
    points: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.verdict != "wrong" for check in self.checks)

    def enforce(self) -> None:
        """Raise the first error; give the warnings where there is none."""
        for check in self.checks:
            if isinstance(check.complaint, VitoolsError):
                raise check.complaint
        for check in self.checks:
            if isinstance(check.complaint, VitoolsWarning):
                warnings.warn(check.complaint, stacklevel=2)

    def __str__(self) -> str:
        name_width = max(len(check.name) for check in self.checks)
        lines = [f"{self.title}: {'ready' if self.is_ready else 'not ready'}"]
        for check in self.checks:
            head = f"{check.name:<{name_width}}  {check.verdict:<9}  "
            blank = " " * len(head)
            words = check.found or ""
            lines += wrap(head + words, WIDTH, subsequent_indent=blank, drop_whitespace=True)
        return "\n".join(line.rstrip() for line in lines)


def preflight(problem: Problem, guide: Any) -> Preflight:
    """What a guide would do wrong, before anything is fitted: a printable report.

    Sites, shapes, supports, plates, scales and minibatches of guide and model are compared in
    one run of both. :func:`~vitools.svi` asks the same before its first step.

    Args:
        guide: a Pyro guide, or a guide class to be called with the model.

    Returns:
        A :class:`Preflight`; its ``enforce()`` raises the first error.

    Example:
        >>> import torch
        >>> from vitools import Problem, preflight
        >>> from vitools.guides import AutoKumaraswamy
        >>> from vitools.models import coin
        >>> print(preflight(Problem(coin.model, torch.tensor([1.0, 0.0])), AutoKumaraswamy))
        guide AutoKumaraswamy for model 'coin': ready
        runs      ok         takes the model's arguments
        sites     ok         draws p
        spread    ok         no point estimates
        supports  ok         those of the priors
        plates    ok         flips
        shapes    ok         those of the model
        scales    ok         alike
        data      ok         counted once
        discrete  ok         none
    """
    check_problem(problem, "preflight()", fixed_data=False)
    with seeded(0), isolated():
        return asked(problem, guide)


def asked(problem: Problem, guide: Any) -> Preflight:
    """Ask every question inside whatever parameter store is active."""
    trial = GuideTrial(problem, guide)
    checks: list[Check] = []
    for question in QUESTIONS:
        name, words = question.__name__, (question.__doc__ or "").strip()
        if checks and checks[0].verdict == "wrong":  # it does not even run
            checks.append(Check(name, words, None))
            continue
        try:
            checks.append(Check(name, words, question(trial)))
        except (VitoolsError, VitoolsWarning) as complaint:
            checks.append(Check(name, words, str(complaint), complaint))
    title = f"{trial.title} for model '{problem.name}'"
    return Preflight(title, tuple(checks), trial.guide, tuple(trial.wide), trial.points)


def check_start(problem: Problem, start: Posterior) -> None:
    """Refuse a fit of other sites as the place to begin, and one without spread."""
    if start.points:
        raise OptionError(
            f"start is a point estimate of {', '.join(start.points)}, which has no spread to begin "
            "with: give a fit with widths, such as start=laplace(problem)."
        )
    expected, found = (
        {name: tuple(site.shape) for name, site in made.continuous.items()}
        for made in (problem, start.problem)
    )
    if expected != found:
        raise OptionError(
            f"start is a fit of model '{start.problem.name}' with sites {found}, expected those of "
            f"model '{problem.name}': {expected}. Give a fit of the same model."
        )
