"""What the options of ``cavi`` may be, and which of them do not go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitools.engines.cavi.values.guides import Guides
from vitools.errors import OptionError
from vitools.jobs import check_jobs, num_jobs
from vitools.problem.sites import listed
from vitools.whole_numbers import check_seed, check_whole


def check_options(
    max_sweeps: int,
    tol: float,
    restarts: int,
    inner_sweeps: int | None,
    warmup_sweeps: int | None,
    seed: int,
) -> None:
    for name, value, least in (
        ("max_sweeps", max_sweeps, 1),
        ("restarts", restarts, 1),
        ("inner_sweeps", 1 if inner_sweeps is None else inner_sweeps, 1),
        ("warmup_sweeps", 0 if warmup_sweeps is None else warmup_sweeps, 0),
    ):
        check_whole(name, value, least)
    if not isinstance(tol, int | float) or not tol >= 0:
        raise OptionError(f"tol: expected a number at least 0, got {tol!r}.")
    check_seed(seed)


def check_restarts(restarts: int, gives_every_site: bool) -> None:
    """Raise for several starts from one and the same."""
    if restarts > 1 and gives_every_site:
        raise OptionError(
            f"restarts={restarts} from a start that gives every site would all be the same run. "
            "Leave restarts out, or give some of the sites only."
        )


def has_jobs(jobs: int | None, restarts: int, **others: object) -> bool:
    """Whether the starts are fits of their own, side by side.

    Args:
        **others: options that make one run of all.
    """
    check_jobs(jobs)
    for name, value in others.items():
        if value and jobs not in (None, 1):
            raise OptionError(f"jobs: not beside {name}, of one run. Leave one of both out.")
    return restarts > 1 and not any(others.values()) and num_jobs(jobs) != 1


def refuse_alone(hold_out: object, batch_rows: object) -> None:
    """Raise for rows held out of a fit that takes all rows at once."""
    if hold_out is not None and batch_rows is None:
        raise OptionError(
            "hold_out: of rows that are taken some at a time. Give batch_rows=, or leave hold_out out."
        )


def refuse_beside(
    option: str,
    nested: Sequence[str] | None,
    guides: Guides | None,
    trains: bool,
    start: object,
    sharded: str | None = None,
) -> None:
    """What a fit of some of the rows at a time does not go with."""
    given = {
        "nested sites, whose cells each need all rows": nested,
        "sites on values": guides,
        "parameters of the model, which svi() trains on some of the rows": trains,
        "a start by sites (give 'prior' or 'data')": start,
        "sharded=, whose processes each take all of their rows": sharded,
    }
    for words, value in given.items():
        if value:
            raise OptionError(f"{option}: not beside {words}. Leave one of both out.")


def refuse_beside_lattice(lattice: Sequence[str], *, trains: bool, checkpoint: object) -> None:
    """What a lattice does not go with."""
    names = listed([repr(name) for name in lattice])
    if trains:
        raise OptionError(
            f"nested: {names} on a lattice, beside parameters of the model that would be trained. Hold them with "
            "problem.with_params(...), or leave nested out."
        )
    if checkpoint is not None:
        raise OptionError(
            f"checkpoint: not where sites are nested on a lattice of their values ({names}), which is not kept. "
            "Leave it out, or nest none."
        )


def check_lists(**options: Any) -> None:
    for name, value in options.items():
        if isinstance(value, str) or not isinstance(value, Sequence | None):
            raise OptionError(
                f"{name}: expected a list, such as {name}=[{value!r}], got {value!r}."
            )
