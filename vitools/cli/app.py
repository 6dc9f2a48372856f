"""The commands of ``vitools``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vitools._version import __version__
from vitools.atomic import check_folder
from vitools.errors import (
    NotConjugate,
    NotSupportedError,
    NumericalError,
    OptionError,
    VitoolsError,
)
from vitools.models import SHIPPED


class Commands(TyperGroup):
    """What every command does with an error the user can put right: one message, no traceback.

    Exit codes: 0 fine, 1 a fit failed or was interrupted, 2 bad usage or input.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VitoolsError as error:
            print(f"vitools: {error}", file=sys.stderr)
            raise typer.Exit(1 if isinstance(error, NumericalError) else 2) from error
        except KeyboardInterrupt as error:
            print("vitools: interrupted; no file is left half-written.", file=sys.stderr)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="vitools",
    cls=Commands,
    help="Variational inference for Pyro models: fit, compare, draw.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A shipped name (see 'vitools list') or path/to/file.py:function."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="csv, npz or parquet; columns become arguments of their name."
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Of simulated data and of every fit.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, results only.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vitools {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Variational inference for Pyro models: fit, compare, draw."""


@app.command("list")
def list_models() -> None:
    """List the shipped models."""
    width = max(map(len, SHIPPED))
    for name, shipped in SHIPPED.items():
        print(f"{name:<{width}}  {shipped.summary}")


@app.command(epilog="Example: vitools draw two-dice --out two_dice.svg")
def draw(
    model: Model,
    out: Annotated[Path, typer.Option(help="Where to; .svg, .png or .pdf.")] = Path("graph.svg"),
    data: Data = None,
    seed: Seed = 0,
) -> None:
    """Draw a model's directed graph with its plates."""
    from vitools import draw as draw_graph
    from vitools.cli.target import open_target

    check_folder(out.parent)
    draw_graph(open_target(model, data, seed).problem, out)
    print(f"written: {out}")


@app.command(epilog="Example: vitools explain two-dice")
def explain(model: Model, data: Data = None, seed: Seed = 0) -> None:
    """Print every site's closed-form update in mathematical words, or why it has none."""
    from vitools.cli.target import open_target

    print(open_target(model, data, seed).problem.explain())


@app.command(epilog="Example: vitools fit two-dice --method kumaraswamy --out fits")
def fit(
    model: Model,
    method: Annotated[str, typer.Option(help="One of 'vitools methods'.")] = "",
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for fit.safetensors and posterior.nc.")
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a model by one method and print the posterior."""
    from vitools.cli.methods import default_methods, find_method
    from vitools.cli.progress import progress_line
    from vitools.cli.target import open_target

    if out is not None:
        check_folder(out)
    named = find_method(method) if method else None
    target = open_target(model, data, seed)
    chosen = named or find_method(default_methods(target)[0])
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
    if out is not None:
        from vitools.reporting import save_figure, save_netcdf, to_arviz

        result.save(out / "fit.safetensors")
        save_netcdf(to_arviz(result, seed=seed), out / "posterior.nc")
        written = [out / "fit.safetensors", out / "posterior.nc"]
        for stem, figure in (target.pictures() if target.pictures else {}).items():
            written.append(out / f"{stem}.png")
            save_figure(figure, written[-1])
        print("written: " + " · ".join(map(str, written)))
    if not result.status.is_good:
        raise typer.Exit(1)


@app.command(epilog="Example: vitools compare two-dice --out report")
def compare(
    model: Model,
    methods: Annotated[
        str, typer.Option(help="Comma-separated, see 'vitools methods'; all that apply if omitted.")
    ] = "",
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder for table, pictures and posterior.")] = Path(
        "report"
    ),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a model by several methods, judge them side by side, and write a report."""
    from vitools import compare as compare_fits
    from vitools.cli.methods import default_methods, find_method
    from vitools.cli.progress import progress_line
    from vitools.cli.target import open_target
    from vitools.posterior import Posterior, Status
    from vitools.reporting import write_report

    check_folder(out)
    names = dict.fromkeys(name.strip() for name in methods.split(",") if name.strip())
    named = [find_method(name) for name in names]
    target = open_target(model, data, seed)
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
    written = write_report(comparison, out)
    print("written: " + " · ".join(str(path) for path in written))
    if interrupted:
        missing = [e.label for e in chosen if e.label not in fits and e.label not in failures]
        print(
            f"vitools: interrupted; the report covers {', '.join(fits)}"
            + (f", not {', '.join(missing)}." if missing else "."),
            file=sys.stderr,
        )
    usable = comparison.table["verdict"].isin(["trust", "use with care", "reference"]).any()
    if interrupted or not usable:
        raise typer.Exit(1)


@app.command("methods")
def list_methods() -> None:
    """List the methods a model can be fitted by."""
    from vitools.cli.methods import METHODS

    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        print(f"{name:<{width}}  {method.summary}")


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
