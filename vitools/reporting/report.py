"""A folder that holds a comparison: a page to read, tables, pictures, the best fit for ArviZ."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from vitools.errors import NotSupportedError, OptionError, VitoolsWarning
from vitools.files.atomic import atomic_path
from vitools.posterior import Posterior
from vitools.problem.sites import nearest
from vitools.reporting.arviz.export import to_arviz
from vitools.reporting.arviz.groups import save_netcdf
from vitools.reporting.arviz.stored_draws import stored_draws
from vitools.reporting.comparison.comparison import Comparison
from vitools.reporting.graph.draw import draw
from vitools.reporting.page.page import Origin, write_page
from vitools.reporting.plots.plots import plot_bound, plot_marginals, plot_moments

DOTS_PER_INCH = 150


def write_report(
    comparison: Comparison,
    folder: str | Path,
    *,
    fit: str | None = None,
    origin: Origin | None = None,
    num_samples: int | None = None,
) -> list[Path]:
    """Write a page, tables, pictures and the best fit into ``folder``.

    The files are ``index.html``, the page; ``comparison.csv`` and ``comparison.json``;
    ``posterior.nc``, a fit for ArviZ; ``bound.png``, ``marginals.png``, ``moments.png`` and
    ``graph.png``. Each is either whole or absent.

    Args:
        folder: made if it does not exist.
        fit: the fit to store in ``posterior.nc``; ``comparison.best`` if omitted. The file's
            attribute ``fit`` says which.
        origin: what the page says of where the comparison comes from.
        num_samples: draws to store in ``posterior.nc``; if omitted, as many as make a file of a few
            megabytes (a :class:`VitoolsWarning` says what was left out).

    Returns:
        The paths, in that order. A model of too many sites to draw has no ``graph.png``, and a
        warning says so.

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
    page, table, record, stored, graph = (
        folder / x
        for x in ("index.html", "comparison.csv", "comparison.json", "posterior.nc", "graph.png")
    )
    comparison.to_csv(table)  # the cheapest first: a folder without leave is found out here
    comparison.to_json(record)
    write_page(comparison, page, origin or Origin())
    chosen = comparison.fits[name]
    attrs: dict[str, str | int | float] = {"fit": name}
    judged = comparison.judgements[name].khat
    if judged is not None:  # the figure of the table, not another one from the draws stored here
        attrs["pareto_khat"] = judged.value
    save_posterior(chosen, stored, seed=comparison.seed, num_samples=num_samples, attrs=attrs)
    written = [page, table, record, stored]
    for maker in (plot_bound, plot_marginals, plot_moments):
        written.append(folder / f"{maker.__name__.removeprefix('plot_')}.png")
        save_figure(maker(comparison), written[-1])
    try:
        with atomic_path(graph) as temporary:
            draw(chosen.problem, temporary)
        written.append(graph)
    except NotSupportedError as error:
        warnings.warn(f"no {graph.name}: {error}", VitoolsWarning, stacklevel=2)
    return written


def save_posterior(
    posterior: Posterior,
    path: Path,
    *,
    seed: int = 0,
    num_samples: int | None = None,
    attrs: dict[str, str | int | float] | None = None,
) -> None:
    """Write a fit for ArviZ, thinned where it would be large, which a warning then says."""
    stored = stored_draws(posterior, num_samples)
    if stored.note:
        warnings.warn(f"{path.name}: {stored.note}", VitoolsWarning, stacklevel=3)
    save_netcdf(to_arviz(posterior, seed=seed, attrs=attrs, **stored.options), path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the format follows the suffix."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
