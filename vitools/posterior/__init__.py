"""What every engine returns: a :class:`Posterior` of one of seven kinds; and its file."""

from vitools.posterior.base import Posterior
from vitools.posterior.carried import carry_over
from vitools.posterior.draws import DrawsPosterior
from vitools.posterior.factorised import Factor, FactorisedPosterior
from vitools.posterior.gaussian import GaussianPosterior
from vitools.posterior.grid import GridPosterior
from vitools.posterior.guided import GuidePosterior
from vitools.posterior.ladder import Attempt, Ladder
from vitools.posterior.mixture import MixturePosterior
from vitools.posterior.product import ProductPosterior
from vitools.posterior.results import Estimate, History, Status
from vitools.posterior.storage import load, save

__all__ = [
    "Attempt",
    "DrawsPosterior",
    "Estimate",
    "Factor",
    "FactorisedPosterior",
    "GaussianPosterior",
    "GridPosterior",
    "GuidePosterior",
    "History",
    "Ladder",
    "MixturePosterior",
    "Posterior",
    "ProductPosterior",
    "Status",
    "carry_over",
    "load",
    "save",
]
