"""Engines: functions from a problem to a posterior."""

from vitools.engines.cavi import cavi
from vitools.engines.dadvi import dadvi
from vitools.engines.exact import exact
from vitools.engines.hand_derived import hand_derived
from vitools.engines.natural import NaturalGradient
from vitools.engines.nuts import nuts
from vitools.engines.objectives import Elbo, ImportanceWeighted, ScoreFunction
from vitools.engines.svi import svi

__all__ = [
    "Elbo",
    "ImportanceWeighted",
    "NaturalGradient",
    "ScoreFunction",
    "cavi",
    "dadvi",
    "exact",
    "hand_derived",
    "nuts",
    "svi",
]
