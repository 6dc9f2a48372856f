"""Which sites need values for the rest of a model to have rules.

A refusal says which latents one value may help. The one of fewest numbers gets one, the model is read
again, and so on until nothing is refused: an LKJ factor, then the scales that stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vitools.calculus.model import ConjugateModel
from vitools.calculus.values.reading import Reader, Reading
from vitools.errors import NotConjugateError, VitoolsError
from vitools.problem import Problem

MOST_NUMBERS = 100
"""Of all sites on values: a guide of more moves slowly, and is better left to svi()."""


def needed_values(
    problem: Problem,
    refusal: NotConjugateError,
    make: Callable[[Reading], ConjugateModel] = ConjugateModel.of_reading,
) -> tuple[str, ...]:
    """The sites, none where values are no remedy.

    That they are only where fewer than half as many numbers get values as keep a factor by a rule:
    what is to gain is the rule's. Called with the problem's parameters in place.

    Args:
        refusal: why the model as it is has no coordinate ascent.
        make: the rest at the values of a reading, or another refusal.
    """
    draws = problem.starting_draws(1)
    sizes = {name: site.shape.numel() for name, site in problem.latents.items()}
    most = min(MOST_NUMBERS, (sum(sizes.values()) - 1) // 3)
    found: list[str] = []
    while True:
        open_ = [n for n in refusal.sites if n in problem.continuous and n not in found]
        if not open_:
            return ()
        found.append(min(open_, key=lambda name: (sizes[name], name)))
        if sum(sizes[name] for name in found) > most:
            return ()
        try:
            with torch.no_grad():
                make(
                    Reader(problem.model, problem.args, problem.kwargs)(
                        {name: draws[name] for name in found}
                    )
                )
            return tuple(found)
        except NotConjugateError as error:
            refusal = error
        except VitoolsError:  # refused for another reason, which values do not mend
            return ()
