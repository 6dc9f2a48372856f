"""``vitools calibrate``: is a method right on average over data sets from the model itself?"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vitools.cli import INTERRUPTED
from vitools.cli.fitting import refuse_idle_guide
from vitools.cli.methods import OWN_GUIDE, default_methods, find_method
from vitools.cli.options import (
    Columns,
    Data,
    Force,
    Guide,
    Missing,
    Model,
    Quiet,
    Seed,
    complete_method,
)
from vitools.errors import NumericalError, OptionError
from vitools.files.atomic import check_folder


def calibrate(
    model: Model,
    method: Annotated[
        str, typer.Option(help="One of 'vitools methods'.", autocompletion=complete_method)
    ] = "",
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    guide: Guide = "",
    data_sets: Annotated[
        int, typer.Option(min=2, max=100_000, help="How many to simulate and fit.")
    ] = 100,
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Processes to share them.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the ranks and their picture; an interrupted run goes on."),
    ] = None,
    force: Force = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit data sets simulated from a model, and see where the true values rank among the draws."""
    from vitools.cli.arguments import DataFile
    from vitools.cli.progress import status_line
    from vitools.cli.target import open_target
    from vitools.diagnostics import calibrate as run
    from vitools.posterior import Posterior
    from vitools.problem import Problem

    if out is not None:
        check_folder(out)
    named = find_method(method) if method else None
    refuse_idle_guide(guide, [method] if method else [], "--method")
    file = DataFile.of(data, columns, missing, quiet)
    target = open_target(model, file, seed, guide)
    if target.is_amortised:
        raise OptionError(
            f"{model} comes with an encoder, which is trained on many rows once; calibration would "
            "train it for every data set. Compare it on held-out data: vitools compare."
        )
    name = method or (OWN_GUIDE if guide else default_methods(target)[0])
    chosen = named or find_method(name)
    if out is not None:
        check_folder(out, f"calibration-{name}.png", force=force)

    def fit(problem: Problem) -> Posterior:
        return chosen.run(replace(target, problem=problem), seed=seed, progress=None, start=None)

    with status_line(f"{chosen.label}: data set 1 of {data_sets}", quiet) as say:

        def show(done: int) -> None:
            if say is not None:
                say(f"{chosen.label}: {done} of {data_sets} data sets done")

        found = run(
            target.problem,
            fit,
            data_sets,
            seed,
            jobs=jobs,
            path=out / f"calibration-{name}.jsonl" if out else None,
            progress=show,
        )
    if found.missing and not found.levels:
        raise KeyboardInterrupt
    if not found.levels:
        raise NumericalError(
            f"none of {data_sets} fits by {chosen.label} gave an answer; the first said: "
            f"{found.failures[min(found.failures)]}"
        )
    print(f"{model}, {chosen.label}: {found}")
    if out is not None:
        from vitools.reporting.plots.calibration import plot_calibration
        from vitools.reporting.report import save_figure

        picture = out / f"calibration-{name}.png"
        save_figure(plot_calibration(found), picture)
        print(f"written to {out}: calibration-{name}.jsonl · {picture.name}")
    if found.missing:
        goes_on = "" if out is None else "; the same command goes on from there"
        print(
            f"vitools: interrupted after {data_sets - found.missing} of {data_sets} data sets"
            f"{goes_on}.",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED)
