"""A comparison on a terminal of 80 columns: two tables, and what they mean."""

import math

from vitools.diagnostics import Grade, Judgement
from vitools.diagnostics.verdict.looks import LOOKS
from vitools.diagnostics.weights.khat import khat_threshold
from vitools.notebook.markup import paragraphs, table
from vitools.posterior import GridPosterior, Posterior
from vitools.problem.sites import listed
from vitools.reporting.comparison.alike import have_equal_params
from vitools.reporting.comparison.record import UNJUDGED, JudgedFits
from vitools.reporting.terminal import Cell, estimate_words, layout, paragraph, seconds_words

WORTH_SAYING = 0.01
"""The share of the mass that a fit has to miss to be listed for it."""


def comparison_text(comparison: JudgedFits) -> str:
    """Verdicts, then moments against the reference, then notes and advice."""
    lines = layout(_verdicts(comparison))
    errors = _errors(comparison)
    if errors:
        lines += ["", *layout(errors, names=(0, 2, 4))]
    notes = [*general_notes(comparison), *_advice(comparison)]
    return "\n".join([*lines, "", *(line for note in notes for line in paragraph(note))])


def comparison_markup(comparison: JudgedFits) -> str:
    """The same for a notebook."""
    tables = [_verdicts(comparison), _errors(comparison)]
    parts = [table([[_words(cell) for cell in row] for row in rows]) for rows in tables if rows]
    return "".join(parts) + paragraphs([*general_notes(comparison), *_advice(comparison)])


def _words(cell: Cell) -> str:
    return cell if isinstance(cell, str) else " ".join(cell).strip()


def _verdicts(comparison: JudgedFits) -> list[list[Cell]]:
    rows: list[list[Cell]] = [["fit", "bound", "k̂", "up to", "seconds", "verdict"]]
    for name, judgement in comparison.judgements.items():
        rows.append(
            [
                name,
                estimate_words(judgement.bound),
                estimate_words(judgement.khat),
                _limit(judgement),
                seconds_words(comparison.fits[name].seconds),
                comparison.verdict_words(name),
            ]
        )
    for name, other in comparison.unjudged.items():
        rows.append(
            [name, ("", ""), ("", ""), ("", ""), seconds_words(other.fit.seconds), UNJUDGED]
        )
    blank = [i for i in range(len(rows[0])) if all(row[i] == ("", "") for row in rows[1:])]
    return [[cell for i, cell in enumerate(row) if i not in blank] for row in rows]


def _limit(judgement: Judgement) -> Cell:
    """Up to where k̂ is usable."""
    limit = judgement.khat_limit
    return (f"{limit:.2f}" if math.isfinite(limit) else "", "")


def _errors(comparison: JudgedFits) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for name, judgement in comparison.judgements.items():
        accuracy = judgement.accuracy
        if accuracy is not None:
            rows.append(
                [
                    name,
                    estimate_words(accuracy.mean_error),
                    accuracy.mean_error_at,
                    estimate_words(accuracy.sd_ratio),
                    accuracy.sd_ratio_at,
                ]
            )
    if not rows:
        return []
    return [[f"against {comparison.reference}", "mean error", "at", "sd ratio", "at"], *rows]


def general_notes(comparison: JudgedFits) -> list[str]:
    """What the figures are, a paragraph each."""
    notes = []
    problem = next(iter(comparison.fits.values())).problem
    if any(judgement.bound for judgement in comparison.judgements.values()):
        summed = f", {', '.join(problem.discrete)} summed out" if problem.discrete else ""
        sites = ", ".join([*problem.observed, *problem.drawn])
        inside = f" - log q({', '.join(problem.drawn)})" if problem.drawn else ""
        count = comparison.num_samples
        notes.append(
            f"bound: E[log p({sites}){inside}]{summed}, {count} draws of each fit; k̂ of up to "
            f"{LOOKS[-1]} times as many, and up to where it is usable at so many"
        )
    notes += _evidence_note(comparison)
    notes += _union_note(comparison)
    notes += _params_note(comparison)
    notes.append(_cost_note(comparison))
    if comparison.reference is None:
        notes.append(
            f"no reference: no {'judged ' * bool(comparison.unjudged)}fit is exact or has "
            "well-mixed chains, so moments go unchecked; "
            "add exact(problem) or nuts(problem)"
        )
    else:
        fit = comparison.fits[comparison.reference]
        judged = "sites"
        if problem.invariants:
            judged = "invariants"
        elif problem.discrete:
            judged = f"continuous sites ({', '.join(problem.discrete)} not judged)"
        notes.append(
            f"reference: {comparison.reference} ({fit.detail or fit.status.label}); mean error, in "
            f"its sds, and sd ratio at the worst entry of the {judged}"
        )
    return notes


def _evidence_note(comparison: JudgedFits) -> list[str]:
    evidence = comparison.log_evidence
    if evidence is None:
        return []
    gaps = [
        f"{name} {evidence.value - judgement.bound.value:.2f}"
        for name, judgement in comparison.judgements.items()
        if judgement.bound and not isinstance(comparison.fits[name], GridPosterior)
    ]
    said = f"log evidence: {evidence}"
    if gaps:
        said += f"; gap of each bound, KL(q ‖ posterior): {', '.join(gaps)}"
    return [said]


def _union_note(comparison: JudgedFits) -> list[str]:
    """What the fits know together."""
    union, title = comparison.union, "together (multiple importance sampling)"
    if comparison.no_union:
        return [f"{title}: not known, because {comparison.no_union}"]
    if union is None:
        return []
    khat, most = union.khat, khat_threshold(union.log_joint.numel())
    if not union.is_usable:
        return [f"{title}: the fits do not cover the posterior, k̂ {khat} of at most {most:.2f}"]
    said = f"{title}: log evidence {union.least_evidence} as far as the fits reach, k̂ {khat}"
    if comparison.missed:
        masses = [
            f"{name} {mass}"
            for name, mass in comparison.missed.items()
            if mass.value > WORTH_SAYING
        ]
        said += f"; mass that {union.num_samples} draws of a fit would not show: "
        said += ", ".join(masses) or f"less than {WORTH_SAYING} for each"
    return [said]


def _cost_note(comparison: JudgedFits) -> str:
    judging = sum(judgement.seconds for judgement in comparison.judgements.values())
    fitting = sum(comparison.fits[name].seconds for name in comparison.judgements)
    said = f"judging took {judging:.1f} s"
    if fitting > 0:
        said += f", {judging / fitting:.2g} times as long as the fits"
    return said


def _params_note(comparison: JudgedFits) -> list[str]:
    """Fits whose models have other parameters are fits of other models."""
    kinds: list[tuple[Posterior, list[str]]] = []
    for name, fit in comparison.fits.items():
        for other, alike in kinds:
            if have_equal_params(fit, other):
                alike.append(name)
                break
        else:
            kinds.append((fit, [name]))
    if len(kinds) < 2:
        return []
    groups = "; ".join(
        f"{', '.join(alike)} ({'fitted or given' if fit.problem.has_given_params else 'initial'})"
        for fit, alike in kinds
    )
    names = listed(kinds[0][0].problem.free_params)
    return [
        f"different models: the parameters {names} have other values in {groups}; bounds, moments and "
        "verdicts compare those models as well as the fits. Give all engines the problem of a fit "
        "that trained them (fit.problem)"
    ]


def _advice(comparison: JudgedFits) -> list[str]:
    found = []
    for name, judgement in comparison.judgements.items():
        verdict = judgement.verdict
        if verdict.grade is not Grade.TRUST:
            advice = f". Next: {verdict.advice}" if verdict.advice else ""
            found.append(f"{name}: {verdict}: {verdict.reason}{advice}")
    return found + [f"{n}: {UNJUDGED}: {other.reason}" for n, other in comparison.unjudged.items()]
