"""A folder that holds a comparison on held-out data: a page with its pictures inside, and tables."""

import base64
from collections.abc import Mapping
from importlib.metadata import version as version_of
from pathlib import Path

from matplotlib.figure import Figure

from vitools._version import __version__
from vitools.files.atomic import atomic_path
from vitools.files.folders import whole_folder
from vitools.files.names import PAGE, RECORD, TABLE
from vitools.posterior import Estimate
from vitools.reporting.held_out.held_out import HeldOutComparison, HeldOutFit, layers
from vitools.reporting.page.page import Origin
from vitools.reporting.page.template import asset, fill, part
from vitools.reporting.report import save_figure
from vitools.reporting.terminal import estimate_words, seconds_words

HEADS = (
    "Bound",
    "Behind the best",
    "ELBO",
    "Reconstruction",
    "KL",
    "Active units",
    "Information",
    "High k̂",
    "Status",
)


def write_held_out_report(
    comparison: HeldOutComparison,
    folder: str | Path,
    figures: Mapping[str, Figure],
    origin: Origin | None = None,
    subjects: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> list[Path]:
    """Write ``comparison.csv``, ``comparison.json``, a ``.png`` for each figure, and ``index.html``.

    Args:
        folder: made if it does not exist.
        figures: by the stem of their file, in the page's order.
        origin: what the page says of where the comparison comes from.
        subjects: the one fit that a figure is of, by stem, where it is not of all.
        force: overwrite files of these names that vitools did not write.

    Returns:
        The paths, the page first. All files are written, or none.
    """
    folder = Path(folder)
    with whole_folder(folder, force=force) as aside:
        page, table, record = (aside / name for name in (PAGE, TABLE, RECORD))
        comparison.to_csv(table)
        comparison.to_json(record)
        pictures = [aside / f"{stem}.png" for stem in figures]
        for path, figure in zip(pictures, figures.values(), strict=True):
            save_figure(figure, path)
        text = held_out_page(comparison, pictures, origin or Origin(), subjects or {})
        with atomic_path(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / path.name for path in (page, table, record, *pictures)]


def held_out_page(
    comparison: HeldOutComparison,
    pictures: list[Path],
    origin: Origin,
    subjects: Mapping[str, str],
) -> str:
    """The HTML, with the pictures' bytes in it: it loads nothing and runs nothing."""
    count = len(comparison.fits)
    return fill(
        asset("held_out.html"),
        version=__version__,
        model=origin.title,
        count=f"{count} fit{'s' * (count > 1)}",
        style=asset("page.css"),
        description=origin.description,
        summary=part(
            "summary",
            judged=f"Highest bound on {comparison.num_data} held-out {comparison.rows}:",
            named=comparison.best,
            words=".",
        ),
        heads="".join(part("plain_head", text=head) for head in HEADS),
        rows="\n".join(
            part(
                "fit_row",
                name=name,
                small=f"{fit.num_parameters:,} weights",
                cells=_cells(comparison, name, fit),
            )
            for name, fit in comparison.fits.items()
        ),
        notes="".join(part("note", text=f"{note}.") for note in comparison.notes()),
        failures="\n".join(
            part("failure", fit=fit, what="gave no answer", reason=reason)
            for fit, reason in origin.failures.items()
        ),
        pictures="\n".join(_picture(path, subjects.get(path.stem, "")) for path in pictures),
        command=part("command", text=origin.command) if origin.command else "",
        facts="\n".join(
            part("figure", name=name, value=value) for name, value in _facts(comparison).items()
        ),
    )


def _cells(comparison: HeldOutComparison, name: str, fit: HeldOutFit) -> str:
    cells = [
        _estimate(fit.bound),
        _text("best") if name == comparison.best else _estimate(comparison.behind(name)),
        _estimate(fit.elbo),
        _estimate(fit.reconstruction),
        _text(layers({site: f"{kl.value:.2f}" for site, kl in fit.kls.items()})),
        _text(layers({site: f"{active}/{size}" for site, (active, size) in fit.active.items()})),
        _estimate(fit.information),
        _text(f"{fit.khat_above:.1%}"),
        _two_lines(fit.fit.status.label, f"{seconds_words(fit.fit.seconds)} s"),
    ]
    return "".join(cells)


def _text(text: str) -> str:
    return part("plain_cell", text=text)


def _estimate(estimate: Estimate) -> str:
    text, error = estimate_words(estimate)
    return _two_lines(text.replace("-", "−"), error)


def _two_lines(text: str, small: str) -> str:
    """One above the other: side by side they would make the table wider than a window."""
    return part("small_cell", text=text, small=small)


def _picture(path: Path, subject: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    title = path.stem.replace("_", " ").capitalize() + (f" of {subject}" if subject else "")
    return part("picture", title=title, data=data)


def _facts(comparison: HeldOutComparison) -> dict[str, str]:
    packages = {"pyro": "pyro-ppl", "torch": "torch"}
    versions = [f"{name} {version_of(package)}" for name, package in packages.items()]
    fits = {
        name: f"{row.fit.engine}, seed {row.fit.seed}, {row.fit.detail or row.fit.status.label}"
        for name, row in comparison.fits.items()
    }
    return {
        **fits,
        "Judged on": f"{comparison.num_data} held-out {comparison.rows}, "
        f"{comparison.num_samples} draws for each",
        "Versions": ", ".join([f"vitools {__version__}", *versions]),
    }
