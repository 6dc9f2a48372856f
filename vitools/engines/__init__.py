"""Engines: functions from a problem to a posterior."""

from vitools.engines.adam_settings import Adam
from vitools.engines.cavi import cavi
from vitools.engines.dadvi import dadvi
from vitools.engines.exact import exact
from vitools.engines.hand_derived import hand_derived
from vitools.engines.laplace import laplace
from vitools.engines.natural import NaturalGradient
from vitools.engines.nuts import nuts
from vitools.engines.objectives import BetaElbo, Elbo, ImportanceWeighted, ScoreFunction
from vitools.engines.schedules import Constant, Cosine, Exponential, Stages
from vitools.engines.svi import svi
from vitools.engines.validation import svi_validated
from vitools.engines.warm_up import warm_up

__all__ = [
    "Adam",
    "BetaElbo",
    "Constant",
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
    "svi",
    "svi_validated",
    "warm_up",
]
