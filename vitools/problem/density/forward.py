"""Running a model forwards: draws from the prior and of replicated data."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from vitools.isolation import seeded
from vitools.problem.density.improper import refuse_improper
from vitools.problem.density.placing import Places, PlacingMessenger
from vitools.problem.density.vectorise import DrawMapper
from vitools.problem.sites import is_deterministic, is_factor, is_subsample


class _DataDrawn(UnconditionMessenger):
    """Draws what the model observes. What it computes (``pyro.deterministic``) stays as computed.

    Drawn from the Delta that Pyro makes of it, a value inside a plate would come as many copies.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if not is_deterministic(msg):
            super()._pyro_sample(msg)


def run_forward(
    call: Callable[[], Any],
    given: Mapping[str, Tensor],
    num_samples: int,
    seed: int,
    isolation: Callable[[], AbstractContextManager[Any]],
    mapper: DrawMapper,
    wanted: Collection[str],
    *,
    stand_ins: bool = False,
    places: Places | None = None,
) -> dict[str, Tensor]:
    """Draw every site not in ``given`` from its own distribution, observed sites included.

    Args:
        call: the model, its arguments bound.
        given: values to hold fixed, ``{site: [num_samples, *shape]}``; may be empty.
        isolation: the context to run the model in.
        wanted: the sites to be returned; all are drawn, but many draws of data need not be kept.
        stand_ins: whether latents with an improper prior get a value of their support; they are
            refused otherwise.
        places: of sites of which ``given`` has some elements only, where these stand.

    Returns:
        ``{site: [num_samples, *shape]}`` for all wanted sites, ``given`` ones included.
    """

    def once(draw: tuple[Tensor, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        _, values = draw
        whole = {name: value for name, value in values.items() if name not in (places or {})}
        with isolation():
            model = _DataDrawn()(call)
            if places:
                model = PlacingMessenger(values, places)(model)
            run = poutine.trace(poutine.condition(model, data=whole)).get_trace()
        if not stand_ins:
            for name in run.stochastic_nodes:
                refuse_improper(name, run.nodes[name]["fn"])
        return {
            name: node["value"]
            for name, node in run.nodes.items()
            if name in wanted and not is_subsample(node) and not is_factor(node)
        }

    with seeded(seed), torch.no_grad():
        return mapper(once, (torch.zeros(num_samples), dict(given)), randomness="different")
