"""vitools: one Pyro model in; coordinate ascent, stochastic VI and NUTS out; one judge compares them.

Names are loaded on first use, so that ``import vitools`` and the command line start fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vitools._version import __version__

if TYPE_CHECKING:
    from vitools.calculus import explain
    from vitools.design import expected_information_gain, next_measurement, run_design
    from vitools.diagnostics import find_modes, judge
    from vitools.engines import (
        Adam,
        BetaElbo,
        Elbo,
        ImportanceWeighted,
        NaturalGradient,
        ScoreFunction,
        cavi,
        dadvi,
        exact,
        laplace,
        nuts,
        svi,
        svi_validated,
        update,
    )
    from vitools.engines.preflight import preflight
    from vitools.engines.svi import warm_up
    from vitools.errors import VitoolsError
    from vitools.formula import from_formula
    from vitools.inference import infer, mix
    from vitools.information import (
        cramer_rao,
        entropy,
        fisher_information,
        information_gain,
        jeffreys_prior,
        kl,
        mutual_information,
    )
    from vitools.learned import fit_density, load, save
    from vitools.posterior import Estimate, History, Posterior, Status
    from vitools.problem import Problem, Site
    from vitools.reporting import compare, draw, to_arviz

_HOME = {
    "Problem": "vitools.problem",
    "Site": "vitools.problem",
    "Posterior": "vitools.posterior",
    "Status": "vitools.posterior",
    "History": "vitools.posterior",
    "Estimate": "vitools.posterior",
    "VitoolsError": "vitools.errors",
    "Adam": "vitools.engines",
    "BetaElbo": "vitools.engines",
    "Elbo": "vitools.engines",
    "ImportanceWeighted": "vitools.engines",
    "NaturalGradient": "vitools.engines",
    "ScoreFunction": "vitools.engines",
    "cavi": "vitools.engines",
    "dadvi": "vitools.engines",
    "exact": "vitools.engines",
    "explain": "vitools.calculus",
    "find_modes": "vitools.diagnostics",
    "from_formula": "vitools.formula",
    "infer": "vitools.inference",
    "judge": "vitools.diagnostics",
    "laplace": "vitools.engines",
    "load": "vitools.learned",
    "mix": "vitools.inference",
    "nuts": "vitools.engines",
    "preflight": "vitools.engines",
    "save": "vitools.learned",
    "svi": "vitools.engines",
    "svi_validated": "vitools.engines",
    "update": "vitools.engines",
    "warm_up": "vitools.engines",
    "compare": "vitools.reporting",
    "draw": "vitools.reporting",
    "to_arviz": "vitools.reporting",
    "cramer_rao": "vitools.information",
    "entropy": "vitools.information",
    "fisher_information": "vitools.information",
    "information_gain": "vitools.information",
    "jeffreys_prior": "vitools.information",
    "kl": "vitools.information",
    "mutual_information": "vitools.information",
    "fit_density": "vitools.learned",
    "expected_information_gain": "vitools.design",
    "next_measurement": "vitools.design",
    "run_design": "vitools.design",
}

__all__ = [
    "Adam",
    "BetaElbo",
    "Elbo",
    "Estimate",
    "History",
    "ImportanceWeighted",
    "NaturalGradient",
    "Posterior",
    "Problem",
    "ScoreFunction",
    "Site",
    "Status",
    "VitoolsError",
    "__version__",
    "cavi",
    "compare",
    "cramer_rao",
    "dadvi",
    "draw",
    "entropy",
    "exact",
    "expected_information_gain",
    "explain",
    "find_modes",
    "fisher_information",
    "fit_density",
    "from_formula",
    "infer",
    "information_gain",
    "jeffreys_prior",
    "judge",
    "kl",
    "laplace",
    "load",
    "mix",
    "mutual_information",
    "next_measurement",
    "nuts",
    "preflight",
    "run_design",
    "save",
    "svi",
    "svi_validated",
    "to_arviz",
    "update",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'vitools' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
