"""Fits of one problem side by side: one judge, one table."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas
import torch

from vitools.atomic import atomic_path
from vitools.diagnostics import Grade, Judgement
from vitools.errors import OptionError
from vitools.posterior import Estimate, GridPosterior, Posterior
from vitools.reporting.comparison_json import comparison_record
from vitools.reporting.comparison_text import UNJUDGED, comparison_text
from vitools.reporting.judging import Judging, default_references, error_words
from vitools.sites import nearest

FEWEST_DRAWS = 100


def compare(
    fits: Mapping[str, Posterior],
    *,
    reference: str | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> "Comparison":
    """Judge several fits of one problem by the same functions.

    Judged are the continuous latents, or the model's invariants where it carries some; discrete
    latents are summed out of bound and weights alike and not judged themselves.

    Args:
        fits: ``{name: posterior}``, all of the same model and data.
        reference: the fit whose moments count as true. If omitted: the first exact one, else
            the first sampler whose chains have mixed, else none (and no errors are reported).
        num_samples: draws from each fit with a density, taken once and used for everything; a
            sampler's own draws are all used.
        seed: of those draws. Each fit draws independently of the others, as the standard errors
            of differences assume, and independently of which others there are.

    Returns:
        A :class:`Comparison`; ``print`` it, or read its ``table``. A fit whose judging raises an
        error has a row that says so, and spares the others.

    Raises:
        KeyboardInterrupt: Ctrl-C; its attribute ``comparison`` is that of the fits judged so far,
            ``None`` if none was.

    Example:
        >>> import torch
        >>> from vitools import Problem, compare
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]).double())
        >>> def beta(a, b):
        ...     q = torch.distributions.Beta(*torch.tensor([a, b]).double())
        ...     return FactorisedPosterior(
        ...         problem, {"p": q}, 0.0, engine="by hand", status=Status.CONVERGED)
        >>> comparison = compare({"posterior": beta(3.0, 2.0), "narrow": beta(12.0, 8.0)})
        >>> comparison.table["verdict"].to_dict()
        {'posterior': 'trust', 'narrow': 'do not use'}
    """
    _check(fits, reference, num_samples)
    judging = Judging(fits, num_samples, seed)
    try:
        judging.run(default_references(fits) if reference is None else [reference])
    except KeyboardInterrupt as interrupt:
        interrupt.comparison = _comparison(judging, "interrupted before it was judged")  # type: ignore[attr-defined]
        raise
    comparison = _comparison(judging)
    if comparison is None:  # what ails the first ails them all
        raise next(iter(judging.errors.values()))
    return comparison


def _comparison(judging: Judging, missing: str = "") -> "Comparison | None":
    """Of all fits that are judged; None if none is. Those without an error lack ``missing``."""
    settled = judging.settled
    if not settled:
        return None
    fits = judging.fits
    return Comparison(
        {name: fits[name] for name in settled},
        settled,
        judging.reference if judging.reference in settled else None,
        judging.num_samples,
        judging.seed,
        {
            name: Unjudged(fit, error_words(judging.errors[name]))
            if name in judging.errors
            else Unjudged(fit, missing)
            for name, fit in fits.items()
            if name not in settled
        },
    )


@dataclass(frozen=True)
class Unjudged:
    """A fit that could not be judged, and why."""

    fit: Posterior
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` returns.

    Attributes:
        fits: ``{name: posterior}``, those that were judged.
        judgements: ``{name: Judgement}``: all figures, and the draws they come from.
        reference: the name of the fit whose moments count as true, or ``None``.
        num_samples, seed: of the draws.
        unjudged: the other fits, each with the reason: what its judging raised, or Ctrl-C.
    """

    fits: dict[str, Posterior]
    judgements: dict[str, Judgement]
    reference: str | None
    num_samples: int
    seed: int
    unjudged: dict[str, Unjudged] = field(default_factory=dict)

    @property
    def log_evidence(self) -> Estimate | None:
        """log p(x), where one of the fits is exact."""
        exact = (fit for fit in self.fits.values() if isinstance(fit, GridPosterior))
        return next((fit.log_evidence for fit in exact), None)

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
        worst entries; ``gap``, log p(x) less the bound, where log p(x) is known; ``seconds``;
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

    def to_csv(self, path: str | Path) -> None:
        """Write :attr:`table`; an existing file is replaced only by a whole new one."""
        table = self.table
        with atomic_path(path) as temporary:
            table.to_csv(temporary)

    def to_json(self, path: str | Path) -> None:
        """Write :func:`~vitools.reporting.comparison_json.comparison_record`, as :meth:`to_csv`."""
        text = json.dumps(comparison_record(self), indent=2, ensure_ascii=False, allow_nan=False)
        with atomic_path(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def __str__(self) -> str:
        return comparison_text(self)

    def verdict_words(self, name: str) -> str:
        """The grade of a fit, or ``"reference"`` for a sound reference."""
        verdict = self.judgements[name].verdict
        is_sound_reference = name == self.reference and verdict.grade is not Grade.REJECT
        return "reference" if is_sound_reference else verdict.grade.value


def _check(fits: Mapping[str, Posterior], reference: str | None, num_samples: int) -> None:
    if not isinstance(fits, Mapping):
        got = "one fit" if isinstance(fits, Posterior) else f"a {type(fits).__name__}"
        raise OptionError(
            f"compare expects {{name: fit}}, got {got}. Give each fit a name: "
            'compare({"CAVI": fit, ...}).'
        )
    if not fits:
        raise OptionError("compare needs at least one fit, got none.")
    for name, fit in fits.items():
        if not isinstance(fit, Posterior):
            raise OptionError(
                f"fit '{name}': expected a Posterior (what cavi, svi, nuts and exact return), got "
                f"{type(fit).__name__}."
            )
    if reference is not None and reference not in fits:
        raise OptionError(
            f"reference '{reference}' is not among the fits ({', '.join(fits)})."
            f"{nearest(reference, fits)}"
        )
    if not isinstance(num_samples, int) or num_samples < FEWEST_DRAWS:
        raise OptionError(f"expected num_samples of at least {FEWEST_DRAWS}, got {num_samples!r}.")
    (first, one), *others = fits.items()
    for name, other in others:
        if other.problem.fingerprint != one.problem.fingerprint:
            raise OptionError(
                f"'{first}' and '{name}' are fits of different problems: '{one.problem!r}' and "
                f"'{other.problem!r}' differ in their sites or observed values. Compare fits of one "
                "Problem."
            )
        if not _have_equal_densities(one, other):
            raise OptionError(
                f"'{first}' and '{name}' have the same sites and data, but their models give "
                "different densities (another prior or hyperparameter?). Compare fits of one Problem."
            )


def _have_equal_densities(one: Posterior, other: Posterior) -> bool:
    """Whether two problems agree at a draw from the prior (models with parameters may differ)."""
    first, second = one.problem, other.problem
    if first is second or first.params["params"] or second.params["params"]:
        return True
    point = {k: v[0] for k, v in first.starting_draws(1).items() if k in first.drawn}
    with torch.no_grad():
        values = [float(problem.log_joint(point)) for problem in (first, second)]
    return math.isclose(*values, rel_tol=1e-4, abs_tol=1e-4) or not all(map(math.isfinite, values))
