"""``vitools judge``: is a fit that another program made any good?"""

from pathlib import Path
from typing import Annotated

import typer

from vitools.cli.options import Columns, Data, Missing, Model, Seed


def judge(
    model: Model,
    draws: Annotated[
        Path,
        typer.Option(
            metavar="FILE.nc", help="Draws as ArviZ stores them: netCDF with a group 'posterior'."
        ),
    ],
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    seed: Seed = 0,
) -> None:
    """Say whether to trust draws of a model's latents that another program made."""
    from vitools.cli.arguments import DataFile
    from vitools.cli.target import open_target
    from vitools.diagnostics import Grade
    from vitools.diagnostics import judge as judge_fit
    from vitools.posterior import Posterior
    from vitools.reporting.terminal import paragraph

    target = open_target(model, DataFile.of(data, columns, missing), seed)
    fit = Posterior.from_draws(target.problem, draws, name=draws.name)
    verdict = judge_fit(fit, seed=seed).verdict
    print(fit)
    advice = f" Next: {verdict.advice}" if verdict.advice else ""
    print("\n".join(paragraph(f"verdict: {verdict}: {verdict.reason.rstrip('.')}.{advice}")))
    if verdict.grade is Grade.REJECT:
        raise typer.Exit(1)
