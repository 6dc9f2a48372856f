"""Fits of one problem side by side: one judge, one table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vitools.errors import OptionError
from vitools.files.atomic import atomic_path
from vitools.jobs import check_jobs
from vitools.posterior import Posterior
from vitools.problem.sites import nearest
from vitools.reporting.comparison.alike import check_alike
from vitools.reporting.comparison.json import comparison_record
from vitools.reporting.comparison.judging import Judging, default_references, error_words
from vitools.reporting.comparison.record import JudgedFits, Unjudged
from vitools.reporting.comparison.text import comparison_markup, comparison_text

FEWEST_DRAWS = 100


def compare(
    fits: Mapping[str, Posterior],
    *,
    reference: str | None = None,
    num_samples: int = 1000,
    seed: int = 0,
    jobs: int | None = None,
) -> Comparison:
    """Judge several fits of one problem by the same functions.

    Judged are the continuous latents, or the model's invariants where it carries some; discrete
    latents are summed out of bound and weights alike and not judged themselves.

    Args:
        fits: ``{name: posterior}``, all of the same model and data.
        reference: the fit whose moments count as true. If omitted: the first exact one, else
            the first sampler whose chains have mixed and which is itself trusted, else none (and no
            errors are reported).
        num_samples: draws from each fit with a density, taken once and used for everything; a
            sampler's own draws are all used.
        seed: of those draws. Each fit draws independently of the others, as the standard errors
            of differences assume, and independently of which others there are.
        jobs: fits that are judged side by side, once the reference is, each on one thread of a process; -1 for as
            many as there are cores. If omitted, what ``joblib.parallel_config`` says, else one.

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
        >>> fits = {"posterior": beta(3.0, 2.0), "half the sd": beta(12.0, 8.0), "a third": beta(30.0, 20.0)}
        >>> comparison = compare(fits)
        >>> comparison.table["verdict"].to_dict()
        {'posterior': 'trust', 'half the sd': 'use with care', 'a third': 'do not use'}
    """
    _check(fits, reference, num_samples)
    check_jobs(jobs)
    judging = Judging(fits, num_samples, seed, jobs)
    try:
        if reference is None:
            judging.run(default_references(fits))
        else:
            judging.run([reference], is_named=True)
    except KeyboardInterrupt as interrupt:
        interrupt.comparison = _comparison(judging, "interrupted before it was judged")  # type: ignore[attr-defined]
        raise
    comparison = _comparison(judging)
    if comparison is None:  # what ails the first ails them all
        raise next(iter(judging.errors.values()))
    return comparison


def _comparison(judging: Judging, missing: str = "") -> Comparison | None:
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
        judging.union,
        judging.no_union,
    )


class Comparison(JudgedFits):
    """What :func:`compare` returns; ``print`` it, or read its ``table``."""

    def to_csv(self, path: str | Path) -> None:
        """Write :attr:`table`; an existing file is replaced only by a whole new one."""
        table = self.table
        with atomic_path(path) as temporary:
            table.to_csv(temporary)

    def to_json(self, path: str | Path) -> None:
        """Write :func:`~vitools.reporting.comparison.json.comparison_record`, as :meth:`to_csv`."""
        text = json.dumps(comparison_record(self), indent=2, ensure_ascii=False, allow_nan=False)
        with atomic_path(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def __str__(self) -> str:
        return comparison_text(self)

    def _repr_html_(self) -> str:
        return comparison_markup(self)


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
    check_alike(fits, "Compare")
