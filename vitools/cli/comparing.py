"""``vitools compare``: what is finished is judged, or kept, whatever becomes of the rest."""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitools.cli import INTERRUPTED
from vitools.cli.fitting import print_written, refuse_idle_guide
from vitools.cli.methods import METHODS, Method, default_methods, find_method
from vitools.cli.options import (
    Columns,
    Data,
    Draws,
    Force,
    Formula,
    FormulaFamily,
    Guide,
    Missing,
    Model,
    Quiet,
    Seed,
    Settings,
    complete_method,
    complete_methods,
)
from vitools.errors import (
    NotConjugateError,
    NotSupportedError,
    NumericalError,
    OptionError,
    VitoolsError,
)
from vitools.files.atomic import check_folder
from vitools.files.folders import whole_folder
from vitools.files.names import OTHER_FITS, PAGE, REPORT_FILES
from vitools.files.ownership import is_own

if TYPE_CHECKING:
    from vitools.cli.arguments import DataFile
    from vitools.cli.target import Target
    from vitools.posterior import Posterior


def compare(
    model: Model = "",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated, see 'vitools methods'; all that apply if omitted.",
            autocompletion=complete_methods,
            show_default=False,
        ),
    ] = None,
    formula: Formula = "",
    family: FormulaFamily = "",
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    settings: Settings = None,
    guide: Guide = "",
    report: Annotated[
        Path,
        typer.Option("--report", "--out", help="Folder for index.html, tables, posterior.nc."),
    ] = Path("report"),
    stored: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="METHOD",
            help="The fit in posterior.nc, with the reference beside it; if omitted, all.",
            autocompletion=complete_method,
            show_default=False,
        ),
    ] = None,
    draws: Draws = None,
    force: Force = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a model by several methods, judge them side by side, and write a report."""
    from vitools.cli.arguments import DataFile
    from vitools.cli.target import open_target
    from vitools.reporting.comparison.judging import error_words
    from vitools.reporting.page.page import Origin

    names = _named(methods)
    named = [find_method(name) for name in names]
    check_folder(report, *REPORT_FILES, force=force)
    if stored is not None:
        _refuse_unfitted(find_method(stored), stored, named)
    refuse_idle_guide(guide, names, "--methods")
    file = DataFile.of(data, columns, missing, quiet, settings)
    target = open_target(model, file, seed, guide, formula=formula, family=family)
    chosen = named or [find_method(name) for name in default_methods(target)]
    made = Made([entry.named_for(target) for entry in chosen])
    if stored is not None:
        _refuse_unfitted(find_method(stored), stored, chosen)
        if target.held_out:
            raise OptionError(
                f"--fit {stored}: fits with encoders have no posterior.nc. Leave --fit out."
            )
    check_folder(report, *_files_of(made, report, target), force=force)
    print(f"{model or formula}: {target.description}\n")
    made.fit(target, seed, quiet)
    if not made.fits and not made.is_interrupted:
        raise _no_answer(made.failures)
    comparison: Any = made.judge(target, seed) if made.fits else None
    if comparison is not None:
        print(comparison)
    reasons = {label: error_words(error) for label, error in made.failures.items()}
    for label, reason in reasons.items():
        print(f"{label}: no answer: {reason}")
    if not made.fits:
        raise KeyboardInterrupt
    origin = Origin(
        title=formula or _without_folder(model),
        description=_described(target.description, data),
        command=_command(model, (formula, family), names, file, guide, seed),
        failures=reasons,
    )
    unjudged = made.unjudged(comparison)
    is_repeated = is_own(report / PAGE)
    replaces = None if comparison is None else OTHER_FITS
    try:
        with whole_folder(report, force=force, replaces=replaces) as aside:
            written = _write(comparison, target, aside, origin, seed, stored, draws)
            written += _save(unjudged, aside)
    except KeyboardInterrupt:
        kept = made.unjudged(None)
        with whole_folder(report, force=force) as aside:
            written = _save(kept, aside)
        print_written([report / path.name for path in written])
        print(f"vitools: interrupted; no report; fits kept: {', '.join(kept)}.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if written:
        if is_repeated and comparison is not None:
            print(f"{report}: the report of an earlier run is replaced")
        print_written([report / path.name for path in written])
    if made.is_interrupted:
        covered = f"the report covers {', '.join(comparison.fits)}" if comparison else "no report"
        print(f"vitools: interrupted; {covered}{made.missing(unjudged)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if made.judging_error is not None:
        raise made.judging_error
    if made.has_failed or unjudged or not comparison.is_usable:
        raise typer.Exit(1)


def _named(methods: str | None) -> list[str]:
    """Comma-separated names, each once; none where the option was not given."""
    if methods is None:
        return []
    names = [name.strip() for name in methods.split(",")]
    if not all(names):
        raise OptionError(
            f"--methods '{methods}': expected names between commas, e.g. --methods cavi,nuts."
        )
    return list(dict.fromkeys(names))


@dataclass
class Made:
    """The fits that the methods made so far, and what became of the others."""

    methods: list[Method]
    fits: dict[str, "Posterior"] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    is_interrupted: bool = False
    judging_error: Exception | None = None

    def fit(self, target: "Target", seed: int, quiet: bool) -> None:
        """By one method after another, until Ctrl-C."""
        from vitools.cli.progress import progress_line
        from vitools.posterior import Status

        for entry in self.methods:
            try:
                with progress_line(entry.label, quiet) as progress:
                    fit = entry.run(target, seed=seed, progress=progress, start=_start(self.fits))
                self.fits[entry.label] = fit
                self.is_interrupted = fit.status is Status.INTERRUPTED
            except KeyboardInterrupt:
                self.is_interrupted = True
            except Exception as error:  # what ails one method spares the rest
                self.failures[entry.label] = error
            if self.is_interrupted:
                return

    def judge(self, target: "Target", seed: int) -> Any:
        """The comparison of all that could be judged; None where that is none."""
        from vitools import compare as compare_fits
        from vitools.cli.held_out import compare_held_out

        try:
            if target.held_out:
                return compare_held_out(self.fits, target.held_out, seed, self.failures)
            return compare_fits(self.fits, seed=seed)
        except KeyboardInterrupt as interrupt:
            self.is_interrupted = True
            return getattr(interrupt, "comparison", None)
        except Exception as error:  # not one could be judged: the fits are kept all the same
            self.judging_error = error
            return None

    def unjudged(self, comparison: Any) -> dict[str, "Posterior"]:
        """By the name of their method, the fits that were to be judged and were not."""
        judged = comparison.fits if comparison else {}
        refused = {label for label, error in self.failures.items() if _is_refusal(error)}
        return {k: fit for k, fit in self.fits.items() if k not in judged and k not in refused}

    @property
    def has_failed(self) -> bool:
        """Whether a method failed that did not just say that the model is none for it."""
        return any(not _is_refusal(error) for error in self.failures.values())

    def missing(self, unjudged: dict[str, "Posterior"]) -> str:
        """What an interrupted report lacks."""
        absent = [m.label for m in self.methods if m.label not in {**self.fits, **self.failures}]
        words = f", not {', '.join(absent)}" if absent else ""
        if unjudged:
            words += f"; fitted but not judged: {', '.join(unjudged)}"
        return f"{words}."


def _write(
    comparison: Any,
    target: "Target",
    folder: Path,
    origin: Any,
    seed: int,
    stored: str | None,
    draws: int | None,
) -> list[Path]:
    """The report, where there is something to report."""
    from vitools.reporting import write_report

    if comparison is None:
        return []
    if target.held_out:
        from vitools.cli.held_out import write

        return write(comparison, target, folder, origin, seed)
    label = find_method(stored).label if stored is not None else None
    if label is not None and label not in comparison.fits:
        print(f"posterior.nc: {label} gave no answer; all fits are stored")
        label = None
    return write_report(comparison, folder, fit=label, origin=origin, num_samples=draws)


def _refuse_unfitted(method: Method, name: str, methods: list[Method]) -> None:
    """A fit to be stored that would not be made."""
    if methods and method not in methods:
        raise OptionError(
            f"--fit {name} names a method that is not run. Add it to --methods, or name one of: "
            f"{', '.join(k for k, v in METHODS.items() if v in methods)}."
        )


def _files_of(made: "Made", report: Path, target: "Target") -> list[str]:
    """Every name that may be written for these methods, whatever becomes of them."""
    from vitools.reporting.report import file_stem

    stems = [file_stem(method.label) for method in made.methods]
    pictures = [path.name for path in report.glob("*.png")] if target.pictures else []
    fits = [name for stem in stems for name in (f"posterior_{stem}.nc", f"{stem}.safetensors")]
    return [*fits, *pictures]


def _save(fits: dict[str, "Posterior"], folder: Path) -> list[Path]:
    """Fits that are in no report, a file each."""
    from vitools.posterior import save
    from vitools.reporting.report import file_stem

    written = []
    for label, fit in fits.items():
        written.append(folder / f"{file_stem(label)}.safetensors")
        save(fit, written[-1])
    return written


def _start(fits: dict) -> object | None:
    """The coordinate-ascent fit with the highest bound, where later methods begin."""
    ascents = [f for f in fits.values() if f.engine.startswith("cavi")]
    return max(ascents, key=lambda f: f.bound, default=None)


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, NotConjugateError | NotSupportedError)


def _no_answer(failures: dict[str, Exception]) -> Exception:
    unexpected = [error for error in failures.values() if not isinstance(error, VitoolsError)]
    if unexpected:
        return unexpected[0]  # with its traceback, which says where
    reasons = "\n  ".join(f"{label}: {error}" for label, error in failures.items())
    kind = OptionError if all(map(_is_refusal, failures.values())) else NumericalError
    return kind(f"no method gave an answer:\n  {reasons}")


# ---- what a report says of its origin: nothing of the machine it was made on -----------------


def _command(
    model: str,
    formula: tuple[str, str],
    methods: list[str],
    file: "DataFile",
    guide: str,
    seed: int,
) -> str:
    words = ["vitools", "compare", *([_without_folder(model)] if model else [])]
    given = [
        ("--formula", formula[0]),
        ("--family", formula[1]),
        ("--methods", ",".join(methods)),
        ("--data", file.path.name if file.path else ""),
        *(("--columns", f"{a}={column}") for a, own in file.columns.items() for column in own),
        ("--missing", "" if file.missing == "refuse" else str(file.missing)),
        ("--guide", _without_folder(guide)),
        ("--seed", str(seed)),
    ]
    words += [word for option, value in given if value for word in (option, value)]
    return shlex.join(words)


def _described(description: str, data: Path | None) -> str:
    return description if data is None else f"data from {data.name}"


def _without_folder(model: str) -> str:
    """``mymodel.py:model`` of ``some/folder/mymodel.py:model``."""
    path, colon, name = model.rpartition(":")
    return f"{Path(path).name}{colon}{name}"
