"""Engines: functions from a problem to a posterior."""

from vitools.engines.cavi import cavi
from vitools.engines.dadvi import dadvi
from vitools.engines.exact import exact
from vitools.engines.guide_check import check_guide
from vitools.engines.hand_derived import hand_derived
from vitools.engines.nuts import nuts
from vitools.engines.objectives import Elbo, ImportanceWeighted, ScoreFunction
from vitools.engines.svi import svi

__all__ = [
    "Elbo",
    "ImportanceWeighted",
    "ScoreFunction",
    "cavi",
    "check_guide",
    "dadvi",
    "exact",
    "hand_derived",
    "nuts",
    "svi",
]
