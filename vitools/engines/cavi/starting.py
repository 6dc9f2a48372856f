"""How a model is set to the start of a seed."""

from __future__ import annotations

from collections.abc import Callable

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise as start_model
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.engines.start_values import StartMoments
from vitools.errors import NotSupportedError
from vitools.problem import Problem


def begin_at(model: ConjugateModel, seed: int, start: StartMoments) -> bool:
    """Set the model to the start of a seed; whether anything was sought in the data."""
    return start_model(model, seed, start.sites, from_data=start.word != "prior")


def starts_inside_rows(model: ConjugateModel, start: StartMoments) -> bool:
    """Whether single rows are to be set of a plate of which the model keeps sums only.

    Where all else is given as well, these follow from it.
    """
    local = {
        name
        for block in model.blocks
        for name in block.names
        if isinstance(block, StreamedBlock) or any(p in model.rows for p in block.batch_plates)
    }
    every = model.trace.as_written(model.latents)
    return bool(model.trace.as_written(local) & set(start.sites)) and not every <= set(start.sites)


def initialiser(
    problem: Problem, model: ConjugateModel, start: StartMoments, seed: int
) -> Callable[[int], object]:
    """What sets the model to the start of a seed."""
    if start.word == "data" and not start_model(model, seed):
        raise NotSupportedError(
            f"start='data': nothing in model '{problem.name}' is begun from its data: it has no "
            "plate of mixture components, no factors to be turned, no vague precision of latents "
            "beside the data. Leave start out, or give 'prior', a fit, or values by site."
        )
    return lambda seed: begin_at(model, seed, start)
