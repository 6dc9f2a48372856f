"""Running a model forwards: draws from the prior and of replicated data."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from vitools.isolation import seeded
from vitools.sites import is_factor, is_subsample
from vitools.vectorise import DrawMapper


def run_forward(
    call: Callable[[], Any],
    given: Mapping[str, Tensor],
    num_draws: int,
    seed: int,
    isolation: Callable[[], AbstractContextManager[Any]],
    mapper: DrawMapper,
) -> dict[str, Tensor]:
    """Draw every site not in ``given`` from its own distribution, observed sites included.

    Args:
        call: the model, its arguments bound.
        given: values to hold fixed, ``{site: [num_draws, *shape]}``; may be empty.
        isolation: the context to run the model in.

    Returns:
        ``{site: [num_draws, *shape]}`` for all sample sites, ``given`` ones included.
    """

    def once(draw: tuple[Tensor, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        _, values = draw
        with isolation():
            model = poutine.uncondition(call)
            run = poutine.trace(poutine.condition(model, data=dict(values))).get_trace()
        return {
            name: node["value"]
            for name, node in run.nodes.items()
            if node["type"] == "sample" and not is_subsample(node) and not is_factor(node)
        }

    with seeded(seed), torch.no_grad():
        return mapper(once, (torch.zeros(num_draws), dict(given)), randomness="different")
