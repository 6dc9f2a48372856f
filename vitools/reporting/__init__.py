"""What a user sees of fits: the comparison, ArviZ, pictures, a folder with all of them.

Names are loaded on first use, so that importing this package loads neither ArviZ nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitools.reporting.arviz.export import to_arviz
    from vitools.reporting.arviz.groups import save_netcdf
    from vitools.reporting.comparison.comparison import Comparison, compare
    from vitools.reporting.graph.draw import draw
    from vitools.reporting.plots.plots import plot_bound, plot_marginals, plot_moments
    from vitools.reporting.report import save_figure, write_report

_HOME = {
    "Comparison": "comparison.comparison",
    "compare": "comparison.comparison",
    "draw": "graph.draw",
    "plot_bound": "plots.plots",
    "plot_marginals": "plots.plots",
    "plot_moments": "plots.plots",
    "save_figure": "report",
    "save_netcdf": "arviz.groups",
    "to_arviz": "arviz.export",
    "write_report": "report",
}

__all__ = [
    "Comparison",
    "compare",
    "draw",
    "plot_bound",
    "plot_marginals",
    "plot_moments",
    "save_figure",
    "save_netcdf",
    "to_arviz",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"vitools.reporting.{_HOME[name]}"), name)
    raise AttributeError(f"module 'vitools.reporting' has no attribute {name!r}")
