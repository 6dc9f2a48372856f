"""``save`` and ``load``: of a fit, or of a density learnt, each in one archive.

A learnt density is its networks' weights and what the samples looked like. One learnt from an energy needs the energy
again, which is the user's own function: some values of it are in the file, and another function is refused.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch.distributions import constraints

from vitools._version import __version__
from vitools.errors import FileError, NotSupportedError, OptionError
from vitools.files.archive import read_archive, write_archive
from vitools.guides.flow.flow import FlowDistribution
from vitools.guides.flow.zuko_flows import FlowMap
from vitools.learned.columns import Columns
from vitools.learned.conditional import ConditionalDensity
from vitools.learned.energy import EnergyDensity, no_map
from vitools.learned.samples import HeldOutHistory, LearnedDensity
from vitools.posterior import Estimate, Posterior, Status
from vitools.posterior import load as load_fit
from vitools.posterior import save as save_fit
from vitools.posterior.storage import OTHER_KINDS
from vitools.problem import Problem

FORMAT = 1
PROBES = 8
"""Points at which an energy is compared with that of the file."""
ALIKE = 1e-4

TAKEN: dict[str, tuple[str, ...]] = {"LearnedDensity": (), "EnergyDensity": ("energy",)}
"""What :func:`load` is given beside a file, by what is in it; the first is needed."""

Energy = Callable[[Tensor], Tensor]


def save(fit: Posterior | LearnedDensity | EnergyDensity, path: str | Path) -> None:
    """Write one safetensors file (JSON metadata inside, no pickle).

    An existing file is replaced only by a whole new one. :func:`load` brings back what was saved.

    Args:
        fit: of any engine, or what ``fit_density`` returned.
    """
    if isinstance(fit, Posterior):
        save_fit(fit, path)
    elif isinstance(fit, LearnedDensity):
        _save(path, "LearnedDensity", *_of_samples(fit))
    elif isinstance(fit, EnergyDensity):
        _save(path, "EnergyDensity", *_of_energy(fit))
    else:
        raise OptionError(f"expected a fit or a learnt density to save, got {type(fit).__name__}.")


@overload
def load(path: str | Path, problem: Problem, guide: Any = None) -> Posterior: ...


@overload
def load(path: str | Path, *, energy: Energy | None = None) -> LearnedDensity | EnergyDensity: ...


def load(
    path: str | Path,
    problem: Problem | None = None,
    guide: Any = None,
    *,
    energy: Energy | None = None,
) -> Posterior | LearnedDensity | EnergyDensity:
    """Read what :func:`save` wrote. Anything else than a whole, matching file is refused.

    Args:
        problem: of a fit: the problem that it is of.
        guide: of a fit whose guide is the user's own function or class: that guide.
        energy: of a density learnt from one: the same function.

    Example:
        >>> import tempfile
        >>> x = torch.randn(200, generator=torch.Generator().manual_seed(0))
        >>> from vitools import fit_density
        >>> q = fit_density(x, kind="normal")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(q, f"{folder}/q.safetensors")
        ...     again = load(f"{folder}/q.safetensors")
        >>> bool((again.log_prob(x) == q.log_prob(x)).all())
        True
    """
    header, tensors = read_archive(path)
    kind = header.get("kind")
    given = {"problem": problem, "guide": guide, "energy": energy}
    taken = TAKEN.get(str(kind), ("problem", "guide"))
    for name, value in given.items():
        if value is not None and name not in taken:
            raise OptionError(
                f"{name}: '{path}' holds {_named(kind)}, which takes none. Leave it out."
            )
    needed = taken[:1]
    for name in needed:
        if given[name] is None:
            raise OptionError(
                f"{name}: '{path}' holds {_named(kind)}; expected the {name} that it is of, got none."
            )
    if kind not in OTHER_KINDS:
        assert problem is not None
        return load_fit(path, problem, guide)
    if header["format"] != FORMAT:
        raise FileError(
            f"'{path}' was written by vitools {header.get('version')} in format {header['format']}; this is "
            f"vitools {__version__}, which reads format {FORMAT}."
        )
    if kind == "LearnedDensity":
        return _samples_again(header["meta"], tensors)
    assert energy is not None
    return _energy_again(path, header["meta"], tensors, energy)


def _named(kind: Any) -> str:
    return {
        "LearnedDensity": "a density learnt from samples",
        "EnergyDensity": "a density learnt from an energy",
    }.get(kind, "a fit")


def _save(path: str | Path, kind: str, meta: dict[str, Any], state: dict[str, Tensor]) -> None:
    header = {"format": FORMAT, "version": __version__, "kind": kind, "meta": meta}
    write_archive(path, header, state)


# ---- of samples ------------------------------------------------------------------------------------


def _of_samples(fit: LearnedDensity) -> tuple[dict[str, Any], dict[str, Tensor]]:
    density, columns, history = fit._density, fit._columns, fit.history
    meta = {
        "kind": fit.kind,
        "held_out": asdict(fit.held_out),
        "gain": asdict(fit.gain),
        "status": fit.status.name,
        "seconds": fit.seconds,
        "flow": None if density.flow is None else density.flow.settings,
        "dtype": str(columns.dtype).removeprefix("torch."),
        "is_flat": columns.is_flat,
        "is_flat_given": columns.is_flat_given,
        "size": columns.size,
        "num_given": columns.num_given,
        "supports": [_written(one) for one in columns.supports],
    }
    state = {name: getattr(density, name) for name in ConditionalDensity.FITTED}
    state |= _weights(density.flow)
    state["history.steps"] = torch.tensor(history.steps, dtype=torch.long)
    for name in ("training", "validation"):
        state[f"history.{name}"] = torch.tensor(getattr(history, name), dtype=torch.float64)
    return meta, state


def _samples_again(meta: dict[str, Any], state: dict[str, Tensor]) -> LearnedDensity:
    fitted = {name: state[name] for name in ConditionalDensity.FITTED}
    density = ConditionalDensity.of(fitted, _flow(meta["flow"], state, fitted["root"]))
    columns = Columns.of(
        dtype=getattr(torch, meta["dtype"]),
        is_flat=meta["is_flat"],
        is_flat_given=meta["is_flat_given"],
        size=meta["size"],
        num_given=meta["num_given"],
        supports=[_read(one) for one in meta["supports"]],
    )
    parts = ("steps", "training", "validation")
    history = HeldOutHistory(*(state[f"history.{name}"].tolist() for name in parts))
    return LearnedDensity(
        meta["kind"],
        Estimate(**meta["held_out"]),
        Estimate(**meta["gain"]),
        Status[meta["status"]],
        history,
        meta["seconds"],
        density,
        columns,
    )


def _written(support: Any) -> dict[str, Any] | None:
    """A constraint of torch in words and numbers."""
    if support is None:
        return None
    name = type(support).__name__
    if getattr(constraints, name, None) is not type(support):
        raise NotSupportedError(
            f"support {support!r} is a class of your own, which a file cannot hold. Learn the density with one of "
            "torch.distributions.constraints, or save samples of it."
        )
    return {"name": name} | {k: float(v) for k, v in vars(support).items()}


def _read(written: dict[str, Any] | None) -> Any:
    if written is None:
        return None
    bounds = {k: v for k, v in written.items() if k != "name"}
    return getattr(constraints, written["name"])(**bounds)


# ---- of an energy ----------------------------------------------------------------------------------


def _of_energy(fit: EnergyDensity) -> tuple[dict[str, Any], dict[str, Tensor]]:
    flow = fit.q.bijection if isinstance(fit.q.bijection, FlowMap) else None
    points = fit.sample(PROBES, seed=0)
    meta = {"temperature": fit.temperature, "flow": None if flow is None else flow.settings}
    state = {"loc": fit.q.loc, "tril": fit.q.tril, "history": fit.history} | _weights(flow)
    with torch.no_grad():
        return meta, state | {"points": points, "energies": fit.energy(points)}


def _energy_again(
    path: str | Path, meta: dict[str, Any], state: dict[str, Tensor], energy: Energy
) -> EnergyDensity:
    if not callable(energy):
        raise OptionError(f"energy: expected a function of points [n, D], got {energy!r}.")
    with torch.no_grad():
        found, expected = energy(state["points"]), state["energies"]
    if (
        not isinstance(found, Tensor)
        or found.shape != expected.shape
        or not torch.allclose(found.to(expected), expected, rtol=ALIKE, atol=ALIKE)
    ):
        raise FileError(
            f"'{path}' was learnt from another energy: at one of its points that is {float(expected[0]):g}. Give the "
            "function it was learnt from."
        )
    flow = _flow(meta["flow"], state, state["loc"])
    q = FlowDistribution(flow or no_map, state["loc"], state["tril"])
    return EnergyDensity(energy, meta["temperature"], q, state["history"])


# ---- networks --------------------------------------------------------------------------------------


def _weights(flow: FlowMap | None) -> dict[str, Tensor]:
    return {} if flow is None else {f"flow.{k}": v for k, v in flow.state_dict().items()}


def _flow(
    settings: dict[str, Any] | None, state: dict[str, Tensor], like: Tensor
) -> FlowMap | None:
    if settings is None:
        return None
    flow = FlowMap(**settings).to(like)
    prefix = "flow."
    flow.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    return flow.requires_grad_(False)
