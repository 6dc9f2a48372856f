"""``vitools fit`` and ``vitools compare``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vitools.atomic import check_folder
from vitools.cli.methods import OWN_GUIDE, Method, default_methods, find_method
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
        Path | None, typer.Option(help="Folder for fit.safetensors, posterior.nc and pictures.")
    ] = None,
    draws: Draws = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a model by one method, print the posterior and say whether to trust it."""
    from vitools.cli.deep_methods import has_encoder
    from vitools.cli.progress import progress_line
    from vitools.cli.target import open_target
    from vitools.diagnostics import Grade, judge
    from vitools.reporting.judging import draw_seed
    from vitools.reporting.terminal import paragraph

    if out is not None:
        check_folder(out, "fit.safetensors", "posterior.nc")
    named = find_method(method) if method else None
    refuse_idle_guide(guide, [method] if method else [], "--method")
    target = open_target(model, data, seed, guide)
    chosen = named or find_method(OWN_GUIDE if guide else default_methods(target)[0])
    label = chosen.named_for(target).label
    try:
        with progress_line(label, quiet) as progress:
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
    if target.held_out and has_encoder(result):
        # the weights of thousands of data together say nothing of any of them
        from vitools.cli.held_out import compare_held_out

        status = f"{result.status.label} ({result.detail}). {result.status.advice}"
        print("\n".join(paragraph(f"{result.engine} fit in {result.seconds:.0f} s: {status}")))
        held_out = compare_held_out({label: result}, target.held_out, seed, {})
        print(f"\n{held_out}")
        is_usable = held_out.is_usable
    else:
        print(result)
        verdict = judge(result, seed=draw_seed(seed, label)).verdict  # draws of compare
        advice = f" Next: {verdict.advice}" if verdict.advice else ""
        print("\n".join(paragraph(f"verdict: {verdict}: {verdict.reason.rstrip('.')}.{advice}")))
        is_usable = verdict.grade is not Grade.REJECT
    if out is not None:
        from vitools.reporting.report import save_figure, save_posterior

        written = [out / "fit.safetensors"]
        result.save(written[0])
        if draws is not None or not target.held_out:  # of an encoder's, one set for each datum
            written.append(out / "posterior.nc")
            save_posterior(result, written[-1], seed=seed, num_draws=draws)
        for stem, figure in (target.pictures() if target.pictures else {}).items():
            written.append(out / f"{stem}.png")
            save_figure(figure, written[-1])
        _print_written(written)
    if not (result.status.is_good and is_usable):
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

    check_folder(report, "index.html", "comparison.csv", "comparison.json", "posterior.nc")
    names = dict.fromkeys(name.strip() for name in methods.split(",") if name.strip())
    named = [find_method(name) for name in names]
    refuse_idle_guide(guide, list(names), "--methods")
    target = open_target(model, data, seed, guide)
    chosen = named or [find_method(name) for name in default_methods(target)]
    chosen = [entry.named_for(target) for entry in chosen]
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
    comparison: Any
    if target.held_out:
        from vitools.cli.held_out import compare_held_out, write

        comparison = compare_held_out(fits, target.held_out, seed, failures)
    else:
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
    if target.held_out:
        _print_written(write(comparison, target, report, origin, seed))
    else:
        _print_written(write_report(comparison, report, origin=origin, num_draws=draws))
    if interrupted:
        missing = _missing(chosen, {**fits, **failures})
        print(
            f"vitools: interrupted; the report covers {', '.join(fits)}{missing}", file=sys.stderr
        )
    if interrupted or not comparison.is_usable:
        raise typer.Exit(1)


def refuse_idle_guide(guide: str, methods: list[str], option: str) -> None:
    """A guide that no method would use is a mistake, not a preference."""
    if guide and methods and OWN_GUIDE not in methods:
        raise OptionError(
            f"--guide '{guide}' would be ignored: only the method {OWN_GUIDE} uses it, and {option} "
            f"names {', '.join(methods)}. Leave {option} out, or name {OWN_GUIDE} in it."
        )


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
