"""A folder that holds a comparison: the table, the pictures, the best fit for ArviZ."""

from pathlib import Path

from matplotlib.figure import Figure

from vitools.atomic import atomic_path
from vitools.errors import OptionError
from vitools.reporting.arviz_export import to_arviz
from vitools.reporting.arviz_groups import save_netcdf
from vitools.reporting.comparison import Comparison
from vitools.reporting.model_graph import draw
from vitools.reporting.plots import plot_bound, plot_marginals, plot_moments
from vitools.sites import nearest

DOTS_PER_INCH = 150


def write_report(
    comparison: Comparison, folder: str | Path, *, fit: str | None = None
) -> list[Path]:
    """Write ``comparison.csv``, ``posterior.nc`` and four pictures into ``folder``.

    The pictures are ``bound.png``, ``marginals.png``, ``moments.png`` and ``graph.png``, the
    model's graph. Each file is either whole or absent.

    Args:
        folder: made if it does not exist.
        fit: the fit to store in ``posterior.nc``; ``comparison.best`` if omitted. The file's
            attribute ``fit`` says which.

    Returns:
        The paths, in that order.

    Raises:
        FileError: the folder cannot be written, found out before any work is done.
    """
    name = comparison.best if fit is None else fit
    if name not in comparison.fits:
        raise OptionError(
            f"no fit '{name}' to store (fits: {', '.join(comparison.fits)})."
            f"{nearest(name, comparison.fits)}"
        )
    folder = Path(folder)
    table, stored, graph = (folder / x for x in ("comparison.csv", "posterior.nc", "graph.png"))
    comparison.to_csv(table)  # the cheapest first: a folder without leave is found out here
    chosen = comparison.fits[name]
    attrs: dict[str, str | int | float] = {"fit": name}
    judged = comparison.judgements[name].khat
    if judged is not None:  # the figure of the table, not another one from the draws stored here
        attrs["pareto_khat"] = judged.value
    save_netcdf(to_arviz(chosen, seed=comparison.seed, attrs=attrs), stored)
    pictures = []
    for maker in (plot_bound, plot_marginals, plot_moments):
        picture = folder / f"{maker.__name__.removeprefix('plot_')}.png"
        save_figure(maker(comparison), picture)
        pictures.append(picture)
    with atomic_path(graph) as temporary:
        draw(chosen.problem, temporary)
    return [table, stored, *pictures, graph]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the format follows the suffix."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
