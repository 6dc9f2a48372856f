"""``vitools fit`` and ``vitools compare``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vitools.atomic import check_folder
from vitools.cli.methods import Method, default_methods, find_method
from vitools.cli.options import (
    Data,
    Draws,
    Guide,
    Model,
    Quiet,
    Seed,
    complete_method,
    complete_methods,
)
from vitools.errors import (
    NotConjugate,
    NotSupportedError,
    NumericalError,
    OptionError,
    VitoolsError,
)


def fit(
    model: Model,
    method: Annotated[
        str, typer.Option(help="One of 'vitools methods'.", autocompletion=complete_method)
    ] = "",
    data: Data = None,
    guide: Guide = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for fit.safetensors and posterior.nc.")
    ] = None,
    draws: Draws = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a model by one method, print the posterior and say whether to trust it."""
    from vitools.cli.progress import progress_line
    from vitools.cli.target import open_target
    from vitools.diagnostics import Grade, judge
    from vitools.reporting.terminal import paragraph

    if out is not None:
        check_folder(out)
    named = find_method(method) if method else None
    target = open_target(model, data, seed, guide)
    chosen = named or find_method("own-guide" if guide else default_methods(target)[0])
    try:
        with progress_line(chosen.label, quiet) as progress:
            result = chosen.run(target, seed=seed, progress=progress, start=None)
    except (NotConjugate, NotSupportedError) as error:
        others = [name for name in default_methods(target) if find_method(name) is not chosen]
        raise type(error)(
            f"{str(error).rstrip('.')}. For {model}, try --method with one of: {', '.join(others)}."
        ) from error
    except NumericalError as error:
        if not hasattr(error, "posterior"):
            raise
        print(f"vitools: {error}", file=sys.stderr)
        result = error.posterior
    print(result)
    verdict = judge(result, seed=seed).verdict
    advice = f" Next: {verdict.advice}" if verdict.advice else ""
    print("\n".join(paragraph(f"verdict: {verdict}: {verdict.reason.rstrip('.')}.{advice}")))
    if out is not None:
        from vitools.reporting.report import save_figure, save_posterior

        result.save(out / "fit.safetensors")
        save_posterior(result, out / "posterior.nc", seed=seed, num_draws=draws)
        written = [out / "fit.safetensors", out / "posterior.nc"]
        for stem, figure in (target.pictures() if target.pictures else {}).items():
            written.append(out / f"{stem}.png")
            save_figure(figure, written[-1])
        _print_written(written)
    if not result.status.is_good or verdict.grade is Grade.REJECT:
        raise typer.Exit(1)


def compare(
    model: Model,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated, see 'vitools methods'; all that apply if omitted.",
            autocompletion=complete_methods,
        ),
    ] = "",
    data: Data = None,
    guide: Guide = "",
    report: Annotated[
        Path,
        typer.Option("--report", "--out", help="Folder for index.html, tables, posterior.nc."),
    ] = Path("report"),
    draws: Draws = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a model by several methods, judge them side by side, and write a report."""
    from vitools import compare as compare_fits
    from vitools.cli.progress import progress_line
    from vitools.cli.target import open_target
    from vitools.posterior import Posterior, Status
    from vitools.reporting import write_report
    from vitools.reporting.html_page import Origin

    check_folder(report)
    names = dict.fromkeys(name.strip() for name in methods.split(",") if name.strip())
    named = [find_method(name) for name in names]
    target = open_target(model, data, seed, guide)
    chosen = named or [find_method(name) for name in default_methods(target)]
    print(f"{model}: {target.description}\n")
    fits: dict[str, Posterior] = {}
    failures: dict[str, VitoolsError] = {}
    interrupted = False
    for entry in chosen:
        try:
            with progress_line(entry.label, quiet) as progress:
                result = entry.run(target, seed=seed, progress=progress, start=_start(fits))
        except VitoolsError as error:  # the problem is sound: what ails one method spares the rest
            failures[entry.label] = error
            continue
        except KeyboardInterrupt:
            interrupted = True
            break
        fits[entry.label] = result
        if result.status is Status.INTERRUPTED:
            interrupted = True
            break
    if not fits:
        if interrupted:
            raise KeyboardInterrupt
        raise _no_answer(failures)
    comparison = compare_fits(fits, seed=seed)
    print(comparison)
    for label, reason in failures.items():
        print(f"{label}: no answer: {reason}")
    origin = Origin(
        title=_without_folder(model),
        description=_described(target.description, data),
        command=_command(model, ",".join(names), data, guide, seed),
        failures={label: str(reason) for label, reason in failures.items()},
    )
    _print_written(write_report(comparison, report, origin=origin, num_draws=draws))
    if interrupted:
        missing = _missing(chosen, {**fits, **failures})
        print(
            f"vitools: interrupted; the report covers {', '.join(fits)}{missing}", file=sys.stderr
        )
    usable = comparison.table["verdict"].isin(["trust", "use with care", "reference"]).any()
    if interrupted or not usable:
        raise typer.Exit(1)


def _print_written(paths: list[Path]) -> None:
    from vitools.reporting.terminal import paragraph

    names = " · ".join(path.name for path in paths)
    print("\n".join(paragraph(f"written to {paths[0].parent}: {names}")))


def _missing(chosen: list[Method], done: dict[str, Any]) -> str:
    labels = [entry.label for entry in chosen if entry.label not in done]
    return f", not {', '.join(labels)}." if labels else "."


def _start(fits: dict) -> object | None:
    """The coordinate-ascent fit with the highest bound, where later methods begin."""
    ascents = [f for f in fits.values() if f.engine.startswith("cavi")]
    return max(ascents, key=lambda f: f.bound, default=None)


def _no_answer(failures: dict[str, VitoolsError]) -> VitoolsError:
    reasons = "\n  ".join(f"{label}: {error}" for label, error in failures.items())
    refused = all(
        isinstance(error, NotConjugate | NotSupportedError) for error in failures.values()
    )
    kind = OptionError if refused else NumericalError
    return kind(f"no method gave an answer:\n  {reasons}")


# ---- what a report says of its origin: nothing of the machine it was made on -----------------


def _command(model: str, methods: str, data: Path | None, guide: str, seed: int) -> str:
    words = ["vitools", "compare", _without_folder(model)]
    given = {
        "--methods": methods,
        "--data": data.name if data else "",
        "--guide": _without_folder(guide),
        "--seed": str(seed),
    }
    words += [word for option, value in given.items() if value for word in (option, value)]
    return shlex.join(words)


def _described(description: str, data: Path | None) -> str:
    return description if data is None else f"data from {data.name}"


def _without_folder(model: str) -> str:
    """``mymodel.py:model`` of ``some/folder/mymodel.py:model``."""
    path, colon, name = model.rpartition(":")
    return f"{Path(path).name}{colon}{name}"
