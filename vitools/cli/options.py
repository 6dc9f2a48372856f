"""The options that several commands share, and what the shell completes them with."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from vitools.cli.methods import METHODS
from vitools.missing import MissingPolicy
from vitools.models import SHIPPED

Completions = list[tuple[str, str]]


def complete_model(incomplete: str) -> Completions:
    """Shipped models; files are the shell's own business."""
    return _starting(incomplete, ((name, shipped.summary) for name, shipped in SHIPPED.items()))


def complete_method(incomplete: str) -> Completions:
    """Methods by name."""
    return _starting(incomplete, ((name, method.summary) for name, method in METHODS.items()))


def complete_methods(incomplete: str) -> Completions:
    """The last of several names, those before it kept."""
    done, comma, last = incomplete.rpartition(",")
    return [(f"{done}{comma}{name}", words) for name, words in complete_method(last)]


def _starting(incomplete: str, offered: Iterable[tuple[str, str]]) -> Completions:
    return [(name, words) for name, words in offered if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A shipped name (see 'vitools list') or path/to/file.py:function; none with --formula.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Formula = Annotated[
    str,
    typer.Option(
        metavar="'Y ~ X + (1 | G)'",
        help="In the place of MODEL, of columns of --data (docs/formula.md).",
        show_default=False,
    ),
]
FormulaFamily = Annotated[
    str,
    typer.Option(
        "--family",
        metavar="NAME",
        help="Of the response of --formula: gaussian if omitted, t, bernoulli, binomial, poisson, "
        "negativebinomial, gamma, beta, cumulative, categorical.",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="csv, tsv, npy, npz, parquet or Arrow, or a pattern of several files, 'rows/*.parquet'; "
        "columns become arguments of their name. For vae, also a folder of images: MNIST's files, or "
        "arrays train.npy and test.npy.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ARGUMENT=COLUMN",
        help="The column for an argument, where names differ; may be given again. An argument given "
        "several columns gets them side by side.",
        show_default=False,
    ),
]
Missing = Annotated[
    MissingPolicy,
    typer.Option(
        help="Rows that lack a value: an error, left out, or told to the model's argument 'mask'."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="ARGUMENT=VALUE",
        help="The value of an argument of the model that is no column: a number, a word, [a list], True; "
        "may be given again.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that vitools did not write.")]
Update = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A saved fit of the model to earlier rows: it becomes the prior of all that is not of "
        "single rows.",
        show_default=False,
    ),
]
Forgetting = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="With --update: what earlier rows count for, against 1 of the new ones.",
    ),
]
BatchRows = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="For cavi: rows that are taken at a time, where they are too many for memory or patience.",
        show_default=False,
    ),
]
Sharded = Annotated[
    str | None,
    typer.Option(
        metavar="PLATE",
        help="For cavi and the methods of svi, started by torchrun: the plate of rows of which every "
        "process takes its part.",
        show_default=False,
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="Without --method: when to settle for the best fit so far.",
        show_default=False,
    ),
]
Guide = Annotated[
    str, typer.Option(metavar="FILE.py:NAME", help="A Pyro guide of your own, for own-guide.")
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Of simulated data and of every fit.")
]
Draws = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1_000_000,
        help="Draws in posterior.nc, with all groups; if omitted, what a few MB hold.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, results only.")]
