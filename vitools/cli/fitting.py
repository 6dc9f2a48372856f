"""``vitools fit``."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitools.cli import INTERRUPTED
from vitools.cli.methods import INFER, OF_PROCESSES, OWN_GUIDE, default_methods, find_method
from vitools.cli.options import (
    BatchRows,
    Columns,
    Data,
    Draws,
    Force,
    Forgetting,
    Formula,
    FormulaFamily,
    Guide,
    MaxSeconds,
    Missing,
    Model,
    Quiet,
    Seed,
    Settings,
    Sharded,
    Update,
    complete_method,
)
from vitools.errors import (
    NotConjugateError,
    NotSupportedError,
    NumericalError,
    OptionError,
    with_notes,
)
from vitools.files.atomic import check_folder
from vitools.files.folders import whole_folder

if TYPE_CHECKING:
    from vitools.cli.arguments import DataFile
    from vitools.cli.target import Target
    from vitools.engines.sharding.ranks import Ranks
    from vitools.posterior import Posterior


def fit(
    model: Model = "",
    method: Annotated[
        str,
        typer.Option(
            help="One of 'vitools methods'; if omitted, one after another until a fit is trusted.",
            autocompletion=complete_method,
            show_default=False,
        ),
    ] = "",
    max_seconds: MaxSeconds = None,
    formula: Formula = "",
    family: FormulaFamily = "",
    data: Data = None,
    columns: Columns = None,
    missing: Missing = "refuse",
    settings: Settings = None,
    guide: Guide = "",
    update: Update = None,
    forgetting: Forgetting = 1.0,
    batch_rows: BatchRows = None,
    sharded: Sharded = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for fit.safetensors, posterior.nc and pictures.")
    ] = None,
    draws: Draws = None,
    force: Force = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a model, print the posterior and say whether to trust it.

    Without --method by the first of several methods, from the cheapest to the surest, whose fit is
    trusted; what was tried is printed as well.
    """
    from vitools.cli.arguments import DataFile
    from vitools.cli.processes import processes
    from vitools.cli.progress import progress_line
    from vitools.cli.target import open_target
    from vitools.posterior import Status, carry_over, save

    if sharded is not None:
        if formula:
            raise OptionError(
                "--sharded: not beside --formula, whose levels are those of all rows."
            )
        if update is not None or batch_rows is not None:
            raise OptionError(
                "--sharded: not beside --update or --batch-rows. Leave one of both out."
            )
        if data is None:
            raise OptionError(
                "--sharded: of which rows? Add --data FILE, of which each takes its part."
            )
    with processes(sharded) as ranks:
        if out is not None:
            check_folder(out, "fit.safetensors", "posterior.nc", force=force)
        named = find_method(method) if method else None
        refuse_idle_guide(guide, [method] if method else [], "--method")
        if ranks is not None and method and method not in OF_PROCESSES:
            raise OptionError(
                f"--sharded is for --method {', '.join(OF_PROCESSES)}, not for {method}."
            )
        silent = quiet or bool(ranks and ranks.rank)
        file = DataFile.of(data, columns, missing, silent, settings)
        if update is None and forgetting != 1.0:
            raise OptionError("--forgetting is of earlier rows: name their fit, --update FILE.")
        if ranks is None:
            target = open_target(model, file, seed, guide, formula=formula, family=family)
        else:
            target = _opened_in_turn(ranks, model, file, seed, guide)
        if update is not None:
            problem = carry_over(update, target.problem, forgetting=forgetting)
            target = replace(target, problem=problem)
        target = replace(target, batch_rows=batch_rows, sharded=sharded)
        if out is not None and target.pictures:
            check_folder(out, *(path.name for path in out.glob("*.png")), force=force)
        chosen = named or find_method(_method_of(target, guide))
        is_ladder = chosen is find_method(INFER)
        if max_seconds is not None and not is_ladder:
            raise OptionError(f"--max-seconds is for --method {INFER}, not for {chosen.label}.")
        if batch_rows is not None and chosen is not find_method("cavi"):
            raise OptionError(f"--batch-rows is for --method cavi, not for {chosen.label}.")
        label = chosen.named_for(target).label
        result: Posterior | None = None
        try:
            try:
                with progress_line("" if is_ladder else label, file.quiet) as progress:
                    options = {"max_seconds": max_seconds} if is_ladder else {}
                    result = chosen.run(target, seed=seed, progress=progress, start=None, **options)
            except (NotConjugateError, NotSupportedError) as error:
                if ranks is not None or is_ladder:
                    raise
                others = [n for n in default_methods(target) if find_method(n) is not chosen]
                raise type(error)(
                    f"{error} For {model or formula}, try --method with one of: {', '.join(others)}."
                ) from error
            except NumericalError as error:
                if not hasattr(error, "posterior"):
                    raise
                print(f"vitools: {with_notes(error)}", file=sys.stderr)
                result = error.posterior
            if ranks is not None:
                is_usable = True
                print(result)
                print("verdict: none: a fit of rows on several processes is not judged.")
            else:
                is_usable = _judge(result, target, label, seed)
            if out is not None and not (ranks and ranks.rank):
                written = _write(result, target, out, force, seed, draws)
                print_written(written)
        except KeyboardInterrupt:
            if out is None or result is None:
                raise
            with whole_folder(out, force=force) as aside:
                save(result, aside / "fit.safetensors")
            print_written([out / "fit.safetensors"])
            print("vitools: interrupted; the fit alone is kept.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    climb = result.ladder
    if result.status is Status.INTERRUPTED if climb is None else climb.is_interrupted:
        raise typer.Exit(INTERRUPTED)
    if not (result.status.is_good and is_usable):
        raise typer.Exit(1)


def _opened_in_turn(
    ranks: "Ranks", model: str, file: "DataFile", seed: int, guide: str
) -> "Target":
    """What each process works on; the first one converts the files, which the others find converted."""
    from vitools.cli.target import open_target

    def opened() -> "Target":
        return open_target(model, replace(file, rank=ranks.rank, num_ranks=ranks.size), seed, guide)

    first = ranks.each(lambda: opened() if ranks.rank == 0 else None)
    return ranks.each(lambda: first or opened())


def _method_of(target: "Target", guide: str) -> str:
    """What fits where nobody names a method."""
    if guide:
        return OWN_GUIDE
    if target.batch_rows is not None or target.sharded is not None:
        return "cavi"
    return default_methods(target)[0] if target.is_amortised else INFER


def _judge(result: "Posterior", target: "Target", label: str, seed: int) -> bool:
    """Print the fit and what is thought of it; whether it may be used."""
    from vitools.cli.deep_methods import has_encoder
    from vitools.diagnostics import Grade, judge
    from vitools.reporting.terminal import paragraph

    if target.held_out and has_encoder(result):
        # the weights of thousands of data together say nothing of any of them
        from vitools.cli.held_out import compare_held_out

        status = f"{result.status.label} ({result.detail}). {result.status.advice}"
        print("\n".join(paragraph(f"{result.engine} fit in {result.seconds:.0f} s: {status}")))
        held_out = compare_held_out({label: result}, target.held_out, seed, {})
        print(f"\n{held_out}")
        return held_out.is_usable
    print(result)
    if result.ladder is not None:
        kept = result.ladder.attempt
        advice = f" Next: {kept.advice}" if kept.advice else ""
        said = f"verdict: {kept.verdict}: {kept.reason.rstrip('.')}.{advice}"
        print("\n".join(paragraph(said)))
        return kept.verdict in (Grade.TRUST.value, Grade.CARE.value)
    verdict = judge(result, seed=seed).verdict
    advice = f" Next: {verdict.advice}" if verdict.advice else ""
    print("\n".join(paragraph(f"verdict: {verdict}: {verdict.reason.rstrip('.')}.{advice}")))
    return verdict.grade is not Grade.REJECT


def _write(
    result: "Posterior", target: "Target", out: Path, force: bool, seed: int, draws: int | None
) -> list[Path]:
    """The fit, its draws for ArviZ and the model's pictures, all of them or none."""
    from vitools.posterior import save
    from vitools.reporting.report import save_figure, save_posterior

    with whole_folder(out, force=force) as aside:
        written = [aside / "fit.safetensors"]
        save(result, written[0])
        if result.part:  # its draws beside data are for whoever has all rows
            return [out / path.name for path in written]
        if draws is not None or not target.held_out:  # an encoder's are one set for each datum
            written.append(aside / "posterior.nc")
            save_posterior(result, written[-1], seed=seed, num_samples=draws)
        for stem, figure in (target.pictures(result) if target.pictures else {}).items():
            written.append(aside / f"{stem}.png")
            save_figure(figure, written[-1])
    return [out / path.name for path in written]


def refuse_idle_guide(guide: str, methods: list[str], option: str) -> None:
    """A guide that no method would use is a mistake, not a preference."""
    if guide and methods and OWN_GUIDE not in methods:
        raise OptionError(
            f"--guide '{guide}' would be ignored: only the method {OWN_GUIDE} uses it, and {option} "
            f"names {', '.join(methods)}. Leave {option} out, or name {OWN_GUIDE} in it."
        )


def print_written(paths: list[Path]) -> None:
    from vitools.reporting.terminal import paragraph

    names = " · ".join(path.name for path in paths)
    print("\n".join(paragraph(f"written to {paths[0].parent}: {names}")))
