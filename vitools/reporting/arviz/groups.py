"""From named NumPy arrays to what the installed ArviZ reads, and to netCDF.

Nothing here knows of models or of torch: :mod:`vitools.reporting.arviz.export` fills in
:class:`Groups`, and :func:`assemble` makes an ``InferenceData`` of them for ArviZ 0.2x or an
``xarray.DataTree`` for ArviZ 1.x.
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray

from vitools.errors import FileError
from vitools.files.atomic import atomic_path

Variable = tuple[tuple[str, ...], np.ndarray]
"""The dimensions of an array, by name, and the array."""


@dataclass(frozen=True)
class Groups:
    """The contents of an ArviZ object.

    Attributes:
        variables: ``{group: {name: (dims, array)}}``.
        coords: ``{dim: labels}``; dims without labels are counted from 0.
        attrs: of the whole and of each group: numbers and strings only.
    """

    variables: dict[str, dict[str, Variable]]
    coords: dict[str, np.ndarray] = field(default_factory=dict)
    attrs: dict[str, str | int | float] = field(default_factory=dict)


def assemble(groups: Groups) -> Any:
    """``InferenceData`` where ArviZ 0.x is installed, ``xarray.DataTree`` where 1.x is.

    netCDF and trees part names at ``/`` and know no empty ones: they become ``.`` and ``unnamed``.
    """
    groups = _with_plain_names(groups)
    datasets = {name: _dataset(groups, name) for name in groups.variables}
    arviz = import_arviz()
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(attrs=dict(groups.attrs), **datasets)
    root = xarray.Dataset(attrs=groups.attrs)
    return xarray.DataTree.from_dict({"/": root} | {f"/{k}": v for k, v in datasets.items()})


def _with_plain_names(groups: Groups) -> Groups:
    """The same under names that can be written; those that come to be alike are told apart by ``_``."""
    names = {d for v in groups.variables.values() for dims, _ in v.values() for d in dims}
    names |= {name for group in groups.variables.values() for name in group} | set(groups.coords)
    plain: dict[str, str] = {}
    # those that stay as they are come first
    for name in sorted(names, key=lambda name: (_plain(name) != name, name)):
        made = _plain(name)
        while made in plain.values():
            made += "_"
        plain[name] = made
    return Groups(
        {
            group: {
                plain[name]: (tuple(plain[dim] for dim in dims), array)
                for name, (dims, array) in variables.items()
            }
            for group, variables in groups.variables.items()
        },
        {plain[dim]: labels for dim, labels in groups.coords.items()},
        groups.attrs,
    )


def _plain(name: str) -> str:
    return name.replace("/", ".") or "unnamed"


def import_arviz() -> ModuleType:
    """ArviZ, without the notice of its coming 1.0 that the 0.2x series prints once a day."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\\s*ArviZ is undergoing a major", FutureWarning)
        import arviz
    return arviz


def save_netcdf(tree: Any, path: str | Path) -> None:
    """Write what :func:`assemble` made; an existing file is replaced only by a whole new one.

    ``arviz.from_netcdf(path)`` reads it back.

    Args:
        tree: the groups.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(_netcdf(tree, path))


def _netcdf(tree: Any, path: str | Path) -> bytes:
    """The file in memory first: HDF5 brings the process down where a disk fills up under it.

    A copy: so does the view of xarray's own buffer, on Python 3.12, where writing it fails.
    """
    if not isinstance(tree, xarray.DataTree):
        groups = {f"/{name}": tree[name] for name in tree.groups()}
        root = xarray.Dataset(attrs=tree.attrs)
        tree = xarray.DataTree.from_dict({"/": root} | groups)
    try:
        return bytes(tree.to_netcdf(None, engine="h5netcdf"))
    except (TypeError, ValueError) as error:
        raise FileError(
            f"cannot write '{path}' as netCDF: {error}. Labels of a plate must be all numbers "
            "or all strings; see Problem.with_coords."
        ) from error


def _dataset(groups: Groups, group: str) -> xarray.Dataset:
    variables = groups.variables[group]
    sizes: dict[str, int] = {}
    for dims, array in variables.values():
        sizes |= dict(zip(dims, array.shape, strict=True))
    coords = {
        dim: groups.coords[dim] if dim in groups.coords else np.arange(size)
        for dim, size in sizes.items()
    }
    return xarray.Dataset(dict(variables), coords=coords, attrs=groups.attrs)
