"""Where a run of :func:`~vitools.svi` begins: at a fit, where a search leads, or as the guide is made."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from vitools.engines.objectives import negative_elbo
from vitools.engines.preflight.preflight import check_start
from vitools.engines.start_values import wrong_start
from vitools.errors import NumericalError, OptionError
from vitools.isolation import seeded
from vitools.posterior import Posterior
from vitools.problem import Problem
from vitools.problem.density.vectorise import DrawMapper

Start = Literal["search", "guide"]

SEARCHED_NUMBERS = 2000
SEARCHED_BYTES = 2**22  # of a draw's density
DRAWS = 20


def is_new(guide: Any) -> bool:
    """Whether a guide is a class yet, or has never seen its model run."""
    return isinstance(guide, type) or getattr(guide, "prototype_trace", guide) is None


def begin(
    problem: Problem, guide: Any, start: Posterior | Start | None, seed: int, is_new: bool
) -> tuple[str, bool]:
    """Move ``guide`` to where the run begins.

    Returns:
        Where that is, in words, and whether q's scales there are those of a posterior.
    """
    if isinstance(start, Posterior):
        check_start(problem, start)
        if not hasattr(guide, "initialise_from"):
            raise OptionError(
                f"guide {type(guide).__name__} cannot start from a fit: it has no "
                "initialise_from(posterior). Leave start out, or use one of vitools.guides."
            )
        guide.initialise_from(start)
        return f"a fit by {start.engine}", True
    as_it_was = "the guide as it was"
    if start not in (None, "search", "guide"):
        raise wrong_start("svi", start)
    if start == "search" and not hasattr(guide, "initialise_near_mode"):
        raise OptionError(
            f"guide {type(guide).__name__} knows no search: it has no initialise_near_mode(problem). "
            "Leave start out, or use one of vitools.guides."
        )
    if start == "guide" or (start is None and not (is_new and _is_cheap(problem, guide))):
        return as_it_was, not is_new
    before, bound = _copies(guide), _bound(problem, guide)
    try:
        guide.initialise_near_mode(problem, seed)
    except NumericalError:
        if start == "search":
            raise
        return f"{as_it_was} (a search found no finite density)", False
    if start is None and not _bound(problem, guide) > bound:
        # the search knows Gaussians only: a sparse simplex can be better off as it was
        with torch.no_grad():
            for parameter, value in zip(guide.parameters(), before, strict=True):
                parameter.copy_(value)
        return f"{as_it_was} (better than where a search led)", False
    return "a quick search", True


def _copies(guide: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in guide.parameters()]


def _bound(problem: Problem, guide: Any) -> float:
    """The ELBO by a few draws, the same each time; -inf where it is no number."""
    objective = negative_elbo(problem, guide, num_particles=1)
    with seeded(0), torch.no_grad():
        losses = [float(objective.loss()) for _ in range(DRAWS)]
    return -math.fsum(losses) / DRAWS if all(map(math.isfinite, losses)) else -math.inf


def _is_cheap(problem: Problem, guide: Any) -> bool:
    """Whether a search of some hundred gradients is short beside a run of thousands of steps."""
    if not hasattr(guide, "initialise_near_mode") or set(problem.drawn) != set(problem.continuous):
        return False
    numbers = sum(site.shape.numel() for site in problem.continuous.values())
    mapper = DrawMapper(None, problem.mapper.bytes_per_draw)
    if numbers > SEARCHED_NUMBERS or mapper.bytes_per_draw > SEARCHED_BYTES:
        return False
    mapper(lambda draw: problem.factors(draw).log_density(), problem.starting_draws(2))
    return mapper.can_vmap
