"""Engines: functions from a problem to a posterior.

Ctrl-C (``KeyboardInterrupt``) is treated alike by all. While an engine iterates it ends the
iteration: the engine returns what its last whole step reached, with the status ``INTERRUPTED``.
Before the first whole step, after the last, and in engines that do not iterate (:func:`exact`,
:func:`hand_derived`), there is nothing half done to return and it is raised. Either way
the problem, Pyro's parameter store, random numbers and torch's defaults are as they were; only what
:func:`svi` trains in place has moved. A checkpoint is that of a whole step and goes on from there to
the numbers of a run that nobody interrupted.
"""

from vitools.engines.cavi.cavi import cavi
from vitools.engines.dadvi import dadvi
from vitools.engines.exact import exact
from vitools.engines.hand_derived import hand_derived
from vitools.engines.laplace import laplace
from vitools.engines.nuts.nuts import nuts
from vitools.engines.objectives import BetaElbo, Elbo, ImportanceWeighted, ScoreFunction
from vitools.engines.preflight.preflight import preflight
from vitools.engines.svi.optimisers.adam_settings import Adam
from vitools.engines.svi.optimisers.natural import NaturalGradient
from vitools.engines.svi.optimisers.schedules import ConstantRate, Cosine, Exponential, Stages
from vitools.engines.svi.svi import svi
from vitools.engines.svi.validation import svi_validated
from vitools.engines.svi.warm_up import warm_up
from vitools.engines.update import update

__all__ = [
    "Adam",
    "BetaElbo",
    "ConstantRate",
    "Cosine",
    "Elbo",
    "Exponential",
    "ImportanceWeighted",
    "NaturalGradient",
    "ScoreFunction",
    "Stages",
    "cavi",
    "dadvi",
    "exact",
    "hand_derived",
    "laplace",
    "nuts",
    "preflight",
    "svi",
    "svi_validated",
    "update",
    "warm_up",
]
