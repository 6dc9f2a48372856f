"""Parameters of the model under an engine that fits none: held, and said to be."""

import warnings

from vitools.errors import VitoolsWarning, callers_level
from vitools.problem import Problem
from vitools.problem.sites import listed


def held_params(problem: Problem, engine: str) -> list[str]:
    """What the fit's ``detail`` should say of them, if anything; a warning where nobody chose them.

    ``pyro.param`` and ``pyro.module`` ask for values that maximise the evidence, which
    :func:`~vitools.svi` climbs. An engine that conditions on them answers another question, unless
    they come from such a fit.
    """
    names = listed(problem.free_params)
    if not names:
        return []
    if problem.has_given_params:
        return [f"parameters held at the values given: {names}"]
    warnings.warn(
        f"model '{problem.name}' has parameters of its own, which {engine}() does not fit but holds "
        f"at their initial values: {names}. cavi() and svi() train them, and their fit.problem has the trained "
        "values; or make them latents; or hold them on purpose by "
        "problem.with_params(problem.params).",
        VitoolsWarning,
        stacklevel=callers_level(),
    )
    return [f"parameters held at their initial values: {names}"]
