"""A command that several processes run together, as ``torchrun`` starts them: the first one speaks for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import typer

from vitools.errors import NumericalError, OptionError, VitoolsError, with_notes

if TYPE_CHECKING:
    from vitools.engines.sharding.ranks import Ranks

STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""


@contextmanager
def processes(plate: str | None) -> Iterator[Ranks | None]:
    """The processes that share the rows of a plate; None where one has them all.

    Inside, those after the first print nothing. An error that all of them raise is told by the first, one
    of another process by that one, with its number.
    """
    if plate is None:
        yield None
        return
    missing = [name for name in STARTED if name not in os.environ]
    if missing:
        raise OptionError(
            f"--sharded {plate}: no other process is there to share the rows ({', '.join(missing)} not set). "
            "Start the command by torchrun: torchrun --nproc-per-node 2 -m vitools fit …, or leave "
            "--sharded out."
        )
    from torch.distributed import destroy_process_group, init_process_group

    from vitools.engines.sharding.ranks import Ranks

    init_process_group("gloo")
    ranks = Ranks()
    try:
        with ExitStack() as stack:
            if ranks.rank:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield ranks
    except VitoolsError as error:
        if ranks.rank == 0:
            raise
        if not error.is_common:
            print(f"vitools: rank {ranks.rank}: {with_notes(error)}", file=sys.stderr)
        raise typer.Exit(1 if isinstance(error, NumericalError) else 2) from error
    finally:
        destroy_process_group()
