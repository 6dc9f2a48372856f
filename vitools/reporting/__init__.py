"""What a user sees of fits: the comparison, ArviZ, pictures, a folder with all of them.

Names are loaded on first use, so that importing this package loads neither ArviZ nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitools.reporting.arviz.export import to_arviz
    from vitools.reporting.arviz.groups import save_netcdf
    from vitools.reporting.comparison.comparison import Comparison, compare
    from vitools.reporting.graph.model_graph import draw
    from vitools.reporting.plots.plots import plot_bound, plot_marginals, plot_moments
    from vitools.reporting.report import save_figure, write_report

_HOME = {
    "Comparison": "comparison",
    "compare": "comparison",
    "draw": "model_graph",
    "plot_bound": "plots",
    "plot_marginals": "plots",
    "plot_moments": "plots",
    "save_figure": "report",
    "save_netcdf": "arviz_groups",
    "to_arviz": "arviz_export",
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
