"""The commands of ``vitools``: the application, and those that fit nothing."""

import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vitools._version import __version__
from vitools.cli import INTERRUPTED, calibrating, comparing, designing, fitting, judging
from vitools.cli.methods import METHODS
from vitools.cli.options import (
    Columns,
    Data,
    Force,
    Formula,
    FormulaFamily,
    Missing,
    Model,
    Seed,
    Settings,
)
from vitools.errors import NumericalError, VitoolsError, VitoolsWarning, with_notes
from vitools.files.atomic import check_folder
from vitools.models import SHIPPED


class Commands(TyperGroup):
    """What every command does with an error the user can put right: one message, no traceback.

    Exit codes: 0 fine, 1 a fit failed, 2 bad usage or input, 130 interrupted.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for option, word in pairwise(["the command", *args]):
            if not word.strip() or (word.startswith("--") and word.endswith("=")):
                name = option if word == word.strip("-=") else word.rstrip("=")
                raise typer.BadParameter(f"{name} is followed by nothing; expected a value.")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", VitoolsWarning)
                warnings.showwarning = _note_or(warnings.showwarning)
                return super().invoke(ctx)
        except VitoolsError as error:
            print(f"vitools: {with_notes(error)}", file=sys.stderr)
            raise typer.Exit(1 if isinstance(error, NumericalError) else 2) from error
        except SystemExit as error:  # typer's own are of another kind
            if isinstance(error.__context__, BrokenPipeError):  # by rich: nobody reads on
                raise typer.Exit(1) from error
            print(
                f"vitools: the model or what it imports ended the program (sys.exit({error.code!r})). "
                "Let it raise an error instead.",
                file=sys.stderr,
            )
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            print("vitools: interrupted; no file is left half-written.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error


def _note_or(show: Any) -> Any:
    """Our own warnings as one line; whatever else Python wants to show as it does."""

    def note(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if issubclass(category, VitoolsWarning):
            print(f"note: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    return note


def examples(*lines: str) -> str:
    """An epilog with a line for each example."""
    return "\n\n".join(["Examples:", *lines])


app = typer.Typer(
    name="vitools",
    cls=Commands,
    help="Variational inference for Pyro models: fit, compare, explain, draw.",
    epilog=examples(
        "vitools compare two-dice",
        "vitools compare mymodel.py:model --data my.csv --report out",
        "vitools explain mymodel.py:model --data my.csv",
        "vitools --install-completion",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vitools {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and end."),
    ] = False,
) -> None:
    """Variational inference for Pyro models: fit, compare, explain, draw."""


@app.command("list", epilog=examples("vitools list"))
def list_models() -> None:
    """List the shipped models."""
    _print_table({name: shipped.summary for name, shipped in SHIPPED.items()})


@app.command("methods", epilog=examples("vitools methods"))
def list_methods() -> None:
    """List the methods a model can be fitted by."""
    _print_table({name: method.summary for name, method in METHODS.items()})


def _print_table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, summary in rows.items():
        print(f"{name:<{width}}  {summary}")


@app.command(
    epilog=examples(
        "vitools explain two-dice", "vitools explain mymodel.py:model --data measurements.parquet"
    )
)
def explain(
    model: Model = "",
    formula: Formula = "",
    family: FormulaFamily = "",
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    settings: Settings = None,
    seed: Seed = 0,
) -> None:
    """Print every site's update in mathematical words, or why it has none."""
    from vitools.calculus import explain as updates_in_words
    from vitools.cli.arguments import DataFile
    from vitools.cli.target import open_target

    file = DataFile.of(data, columns, missing, settings=settings)
    target = open_target(model, file, seed, formula=formula, family=family)
    print(updates_in_words(target.problem))


@app.command(
    epilog=examples(
        "vitools draw two-dice --out two_dice.svg",
        "vitools draw mymodel.py:model --data my.npz --out graph.pdf",
    )
)
def draw(
    model: Model = "",
    out: Annotated[Path, typer.Option(help="Where to; .svg, .png or .pdf.")] = Path("graph.svg"),
    formula: Formula = "",
    family: FormulaFamily = "",
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    settings: Settings = None,
    force: Force = False,
    seed: Seed = 0,
) -> None:
    """Draw a model's directed graph with its plates."""
    from vitools import draw as draw_graph
    from vitools.cli.arguments import DataFile
    from vitools.cli.target import open_target

    check_folder(out.parent, out.name, force=force)
    file = DataFile.of(data, columns, missing, settings=settings)
    target = open_target(model, file, seed, formula=formula, family=family)
    draw_graph(target.problem, out)
    print(f"written: {out}")


app.command(
    epilog=examples(
        "vitools fit two-dice --out fits",
        "vitools fit two-dice --method kumaraswamy",
        "vitools fit mymodel.py:model --data my.csv --method nuts",
        "vitools fit mymodel.py:model --data my.csv --columns 'y=height cm' --missing drop",
        "vitools fit mymodel.py:model --data my.csv --guide mymodel.py:guide",
        "vitools fit hidden-markov --set states=3",
        "vitools fit --formula 'y ~ x + (1 | g)' --data my.csv",
    )
)(fitting.fit)
app.command(
    epilog=examples(
        "vitools compare two-dice",
        "vitools compare regression --methods cavi,multivariate,nuts --seed 3",
        "vitools compare mymodel.py:model --data my.csv --report out",
        "vitools compare vae --report vae_report",
    )
)(comparing.compare)
app.command(
    epilog=examples(
        "vitools judge regression --draws posterior.nc",
        "vitools judge mymodel.py:model --data my.csv --draws from_pymc.nc",
    )
)(judging.judge)
app.command(
    epilog=examples(
        "vitools calibrate coin --method kumaraswamy",
        "vitools calibrate regression --method cavi --data-sets 200 --jobs 2 --out calibration",
    )
)(calibrating.calibrate)
app.command(
    epilog=examples(
        "vitools design mymodel.py:model --designs 0:8:33",
        "vitools design mymodel.py:model --designs candidates.csv --data so_far.csv --method nested",
    )
)(designing.design)
app.command(
    epilog=examples(
        "vitools information fits/cavi.safetensors regression",
        "vitools information fit.safetensors mymodel.py:model --data my.csv",
    )
)(designing.information)
