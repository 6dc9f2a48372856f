"""Saving and loading posteriors, each in one archive."""

from pathlib import Path
from typing import Any

from vitools._version import __version__
from vitools.errors import FileError, OptionError
from vitools.files.archive import read_archive, write_archive
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.draws import DrawsPosterior
from vitools.posterior.factorised import FactorisedPosterior
from vitools.posterior.gaussian import GaussianPosterior
from vitools.posterior.grid import GridPosterior
from vitools.posterior.guided import GuidePosterior
from vitools.posterior.ladder import Ladder
from vitools.posterior.mixture import MixturePosterior
from vitools.posterior.product import ProductPosterior
from vitools.posterior.results import History, Status
from vitools.problem import Problem

FORMAT = 1
KINDS: dict[str, type[Posterior]] = {
    kind.__name__: kind
    for kind in (
        DrawsPosterior,
        FactorisedPosterior,
        GaussianPosterior,
        GridPosterior,
        GuidePosterior,
        MixturePosterior,
        ProductPosterior,
    )
}

OTHER_KINDS = ("LearnedDensity", "EnergyDensity")
"""What archives hold beside fits, written and read by :mod:`vitools.learned.storage`."""


def save(posterior: Posterior, path: str | Path) -> None:
    """Write one safetensors file (JSON metadata inside, no pickle).

    An existing file is replaced only by a whole new one. :func:`load` brings the posterior back.
    """
    if not isinstance(posterior, Posterior):
        raise OptionError(f"expected a fit to save, got {type(posterior).__name__}.")
    state, meta = posterior._state()
    tensors = {f"state.{k}": v for k, v in state.items()}
    tensors |= {f"history.{k}": v for k, v in posterior.history.tensors().items()}
    header = {
        "format": FORMAT,
        "version": __version__,
        "kind": type(posterior).__name__,
        "model": posterior.problem.name,
        "fingerprint": posterior.problem.fingerprint,
        "engine": posterior.engine,
        "status": posterior.status.name,
        "detail": posterior.detail,
        "seconds": posterior.seconds,
        "seed": posterior.seed,
        "meta": meta,
    }
    if posterior.part:
        header["part"] = posterior.part
    if posterior.ladder is not None:
        header["ladder"] = posterior.ladder.record()
    write_archive(path, header, tensors)


def load(path: str | Path, problem: Problem, guide: Any = None) -> Posterior:
    """Read what :func:`save` wrote, for the same problem.

    Anything else than a whole, matching file is refused.

    Args:
        guide: needed only for a fit whose guide is the user's own function or class.
    """
    header, tensors = read_archive(path)
    if header.get("kind") in OTHER_KINDS:
        raise FileError(f"'{path}' holds a density learnt by fit_density(), not a fit of a model.")
    if header.get("format") != FORMAT or header.get("kind") not in KINDS:
        raise FileError(
            f"'{path}' was written by vitools {header.get('version')} in format "
            f"{header.get('format')}; this is vitools {__version__}, which reads format {FORMAT}."
        )
    if header["fingerprint"] != problem.fingerprint:
        raise FileError(
            f"'{path}' is a fit of model '{header['model']}' to other data or sites than this "
            f"problem ('{problem.name}'). Build the Problem with the model and data of the fit."
        )
    history = History.from_tensors(
        {k.removeprefix("history."): v for k, v in tensors.items() if k.startswith("history.")}
    )
    common = {
        "engine": header["engine"],
        "status": Status[header["status"]],
        "detail": header["detail"],
        "seconds": header["seconds"],
        "seed": header["seed"],
        "history": history,
    }
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    saved = Saved(problem, state, header["meta"], common, guide, KINDS)
    restored = KINDS[header["kind"]]._restore(saved)
    restored.part = header.get("part", "")
    if header.get("ladder"):
        restored.ladder = Ladder.of_record(header["ladder"])
    return restored
