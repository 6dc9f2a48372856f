"""A folder that holds a comparison: a page to read, tables, pictures, the fits for ArviZ."""

import re
import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vitools._version import __version__
from vitools.errors import NotSupportedError, OptionError, VitoolsWarning
from vitools.files.atomic import as_path, atomic_path, check_folder
from vitools.files.folders import whole_folder
from vitools.files.names import FIT, OTHER_FITS, PAGE, PICTURES, RECORD, TABLE
from vitools.files.ownership import PICTURE_KEYS
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
    force: bool = False,
) -> list[Path]:
    """Write a page, tables, pictures and the fits into ``folder``, all of them or none.

    The files are ``index.html``, the page; ``comparison.csv`` and ``comparison.json``;
    ``posterior.nc``, the best fit for ArviZ, and ``posterior_{fit}.nc``, each of the others;
    ``bound.png``, ``marginals.png``, ``moments.png`` and ``graph.png``. Whatever goes wrong, the folder
    is left as it was; other files in it stay.

    Args:
        folder: made if it does not exist.
        fit: the fit to store in ``posterior.nc``, beside which then only the reference is stored.
            A file's attribute ``fit`` says whose it is.
        origin: what the page says of where the comparison comes from.
        num_samples: draws to store of each fit; if omitted, as many as make a file of a few
            megabytes (a :class:`VitoolsWarning` says what was left out).
        force: overwrite files of these names that vitools did not write.

    Returns:
        The paths, in that order. A model of too many sites to draw has no ``graph.png``, and a
        warning says so.

    Raises:
        FileError: the folder cannot be written, found out before any work is done, or holds files
            of these names that vitools did not write.
    """
    if fit is not None and fit not in comparison.fits:
        raise OptionError(
            f"no fit '{fit}' to store (fits: {', '.join(comparison.fits)})."
            f"{nearest(fit, comparison.fits)}"
        )
    folder = as_path(folder)
    stored = stored_fits(comparison, fit)
    check_folder(folder, PAGE, TABLE, RECORD, *stored, *PICTURES, force=force)
    with whole_folder(folder, force=force, replaces=OTHER_FITS) as aside:
        page, table, record = (aside / name for name in (PAGE, TABLE, RECORD))
        comparison.to_csv(table)
        comparison.to_json(record)
        write_page(comparison, page, origin or Origin())
        written = [page, table, record]
        for file, name in stored.items():
            attrs: dict[str, str | int | float] = {"fit": name}
            judged = comparison.judgements[name].khat
            if judged is not None:  # the table's figure, not another from the draws stored here
                attrs["pareto_khat"] = judged.value
            options: dict[str, Any] = {
                "seed": comparison.seed,
                "num_samples": num_samples,
                "attrs": attrs,
            }
            try:
                save_posterior(comparison.fits[name], aside / file, **options)
                written.append(aside / file)
            except NotSupportedError as error:
                if name == stored[FIT]:
                    raise
                warnings.warn(f"no {file}: {error}", VitoolsWarning, stacklevel=2)
        for maker in (plot_bound, plot_marginals, plot_moments):
            written.append(aside / f"{maker.__name__.removeprefix('plot_')}.png")
            save_figure(maker(comparison), written[-1])
        graph = aside / PICTURES[-1]
        try:
            draw(comparison.fits[stored[FIT]].problem, graph)
            written.append(graph)
        except NotSupportedError as error:
            warnings.warn(f"no {graph.name}: {error}", VitoolsWarning, stacklevel=2)
    return [folder / path.name for path in written]


def stored_fits(comparison: Comparison, fit: str | None) -> dict[str, str]:
    """``{file: fit}``: the best or the chosen one first, as ``posterior.nc``.

    A file each, because ``arviz.from_netcdf`` opens one fit, in 0.2x and in 1.x.
    """
    first = comparison.best if fit is None else fit
    others = [comparison.reference] if fit is not None else list(comparison.fits)
    names = [name for name in others if name is not None and name != first]
    return {FIT: first} | {f"posterior_{file_stem(name)}.nc": name for name in names}


def file_stem(name: str) -> str:
    """A fit's name as part of a file's: ``CAVI_joint`` of ``CAVI joint``."""
    return re.sub(r"[^\w.+-]+", "_", name)


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
    """Write a picture, whole or not at all; the format follows the suffix.

    Args:
        figure: a matplotlib Figure.
    """
    key = PICTURE_KEYS.get(path.suffix.lower())
    metadata = {key: f"vitools {__version__}"} if key else None
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata=metadata)
