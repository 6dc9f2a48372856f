"""Saving and loading posteriors: one safetensors file, metadata as JSON in its header."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitools._version import __version__
from vitools.atomic import atomic_path
from vitools.errors import FileError
from vitools.posterior.base import Posterior
from vitools.posterior.draws import DrawsPosterior
from vitools.posterior.factorised import FactorisedPosterior
from vitools.posterior.grid import GridPosterior
from vitools.posterior.guided import GuidePosterior
from vitools.posterior.results import History, Status
from vitools.problem import Problem

FORMAT = 1
KINDS: dict[str, type[Posterior]] = {
    kind.__name__: kind
    for kind in (DrawsPosterior, FactorisedPosterior, GridPosterior, GuidePosterior)
}


def save(posterior: Posterior, path: str | Path) -> None:
    """Write ``posterior`` to ``path``; an existing file is replaced only by a whole new one."""
    state, meta = posterior._state()
    tensors = {f"state.{k}": v.detach().cpu().contiguous().clone() for k, v in state.items()}
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
    text = json.dumps(header, sort_keys=True)
    metadata = {"vitools": text, "digest": _digest(text, tensors)}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata=metadata)
        except SafetensorError as error:
            raise FileError(f"cannot write '{path}': {error}.") from error


def load(path: str | Path, problem: Problem, guide: Any = None) -> Posterior:
    """Read a posterior of ``problem``; anything else than a whole, matching file is refused."""
    header, tensors = _read(Path(path))
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
    return KINDS[header["kind"]]._restore(problem, state, header["meta"], common, guide)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise FileError(f"no file '{path}'.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(
            f"'{path}' is not a whole safetensors file ({error}); it was damaged or cut short. "
            "Fit again, or restore it from a copy."
        ) from error
    if "vitools" not in metadata or "digest" not in metadata:
        raise FileError(f"'{path}' is a safetensors file, but not one vitools wrote.")
    if metadata["digest"] != _digest(metadata["vitools"], tensors):
        raise FileError(
            f"'{path}' is damaged: its contents do not match their digest. "
            "Fit again, or restore it from a copy."
        )
    return json.loads(metadata["vitools"]), tensors


def _digest(header: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
