"""``vitools design`` and ``vitools information``: what a measurement would tell, and what the data told."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitools.cli.options import Columns, Data, Missing, Model, Seed
from vitools.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor


def design(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="path/to/file.py:function, called as model(design) with what will be seen left None.",
        ),
    ],
    designs: Annotated[
        str,
        typer.Option(
            metavar="LOW:HIGH:COUNT|FILE",
            help="Candidates: so many from low to high, or a file with a candidate in each row.",
        ),
    ],
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    observations: Annotated[
        str, typer.Option(help="Sites that will be seen; if omitted, arguments that may be None.")
    ] = "",
    targets: Annotated[
        str, typer.Option(help="Latents to be learnt, with commas between them; all if omitted.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(help="auto, grid, listed, nested, contrastive, posterior, marginal, laplace."),
    ] = "auto",
    flow: Annotated[
        str, typer.Option(help="Of posterior and marginal: spline, realnvp, autoregressive.")
    ] = "",
    fit_by: Annotated[
        str, typer.Option(help="With --data, measurements so far: the method that fits them.")
    ] = "laplace",
    draws: Annotated[
        int, typer.Option(min=10, max=100_000, help="Draws for each candidate.")
    ] = 1000,
    seed: Seed = 0,
) -> None:
    """Say what each of several measurements is expected to tell, and which to make next."""
    from dataclasses import replace

    from vitools.cli.arguments import DataFile
    from vitools.cli.methods import find_method
    from vitools.cli.target import load_function, open_target
    from vitools.design import next_measurement

    candidates = _candidates(designs)
    file = DataFile.of(data, columns, missing)
    source: Any = load_function(model)
    if data is not None:
        target = open_target(model, file, seed)
        chosen = find_method(fit_by)
        source = chosen.run(
            replace(target, problem=target.problem), seed=seed, progress=None, start=None
        )
        print(f"after {data}, {chosen.label}: {source.status.label}")
    choice = next_measurement(
        source,
        candidates,
        observations=_listed(observations),
        targets=_listed(targets),
        method=method,
        flow=flow or None,
        num_samples=draws,
        seed=seed,
    )
    print(choice.gains)
    print(choice)


def _listed(names: str) -> list[str] | None:
    return [name.strip() for name in names.split(",")] if names else None


def _candidates(designs: str) -> "Tensor":
    """``[C, …]`` in float64."""
    import torch

    from vitools.data import read_table

    path = Path(designs)
    if path.is_file():
        found = list(read_table(path).tensors.values())
        table = torch.stack([column.double() for column in found], -1)
        return table.squeeze(-1) if len(found) == 1 else table
    parts = designs.split(":")
    try:
        low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
        good = len(parts) == 3 and count >= 1 and low <= high and math.isfinite(high - low)
    except (ValueError, IndexError):
        good = False
    if not good:
        raise OptionError(
            f"--designs '{designs}': expected low:high:count, as in 0:8:33, or a file that is there."
        )
    return torch.linspace(low, high, count, dtype=torch.float64)


def information(
    fit: Annotated[
        Path, typer.Argument(metavar="FIT", help="A saved fit, as vitools fit --out writes it.")
    ],
    model: Model,
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    draws: Annotated[int, typer.Option(min=2, max=1_000_000, help="Of the fit.")] = 4000,
    seed: Seed = 0,
) -> None:
    """Say how much the data told of the latents: from the prior to the posterior of a fit."""
    from vitools.cli.arguments import DataFile
    from vitools.cli.target import open_target
    from vitools.information import information_gain
    from vitools.posterior import Estimate, GridPosterior, load

    target = open_target(model, DataFile.of(data, columns, missing), seed)
    found = load(fit, target.problem)
    gain = information_gain(found, num_samples=draws, seed=seed)
    bits = Estimate(gain.value / math.log(2), gain.standard_error / math.log(2))
    print(f"{found.engine} fit of model '{target.problem.name}': {', '.join(target.problem.drawn)}")
    if isinstance(found, GridPosterior):
        print(f"the data told {gain} nats, {bits} bits")
        return
    print(
        "what follows is the divergence of this fit from the prior: where the fit is not the posterior (ask "
        "vitools compare) it is not what the data told, and the error does not hold the difference"
    )
    print(f"by this fit the data told {gain} nats, {bits} bits")
