"""Names for the dimensions of a site's values: plates where there are some."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitools.problem.sites import Site

SAMPLE_DIMS = ("chain", "draw")
"""ArviZ's own dims."""

NamedShape = tuple[tuple[str, ...], tuple[int, ...]]
"""Names of dimensions and their sizes."""


def plate_dim(plate: str) -> str:
    """The dimension of a plate: its name, unless ArviZ needs that name for itself."""
    return f"{plate}_plate" if plate in SAMPLE_DIMS else plate


def site_dims(site: Site, shape: tuple[int, ...]) -> NamedShape:
    """Names for one value of a site, ``shape`` being the value's own.

    Dims without a plate are ``{site}_dim_{i}``, counted from 0; batch dims without a plate and of
    length one, which only keep other dims in place, are dropped.
    """
    plates: list[str | None] = [*site.plates, *[None] * site.event_dim]
    is_event = [False] * len(site.plates) + [True] * site.event_dim
    if len(shape) < len(plates):  # pyro.deterministic in a plate: its value has no event dims
        plates, is_event = _recovered_plates(site, shape), [False] * len(shape)
    for _ in range(len(shape) - len(plates)):  # a value may be larger than its distribution
        plates, is_event = [None, *plates], [False, *is_event]
    return named_shape(site.name, shape, plates, is_event)


def _recovered_plates(site: Site, shape: tuple[int, ...]) -> list[str | None]:
    """Plates by position from the right, where the lengths agree.

    ``pyro.deterministic(name, value)`` declares every dim of its value an event dim unless told
    otherwise, and a plate around it then expands it once more.
    """
    found: list[str | None] = [None] * len(shape)
    for i in range(1, min(len(shape), len(site.plates)) + 1):
        if shape[-i] == site.batch_shape[-i]:
            found[-i] = site.plates[-i]
    return found


def named_shape(
    name: str, shape: tuple[int, ...], plates: list[str | None], is_event: list[bool]
) -> NamedShape:
    """Plates by their names, other dims counted; batch dims of length one are dropped."""
    dims: list[str] = []
    sizes: list[int] = []
    unnamed = 0
    for size, plate, event in zip(shape, plates, is_event, strict=True):
        if plate is None and size == 1 and not event:
            continue
        if plate is None:
            plate, unnamed = f"{name}_dim_{unnamed}", unnamed + 1
        dims.append(plate_dim(plate))
        sizes.append(size)
    return tuple(dims), tuple(sizes)


def element_words(site: Site, coords: Mapping[str, Sequence[Any]], index: tuple[int, ...]) -> str:
    """An element of a site's value as ``b[oak, 2]``: by its labels where there are some, else by position."""
    if not index:
        return site.name
    shape = tuple(site.shape)
    names, sizes = site_dims(site, shape)
    if sizes != shape:  # without names are dims of length one that keep others in place
        names = ("",) * len(shape)
    own = {plate_dim(name): labels for name, labels in coords.items()}
    words = [
        str(own[name][i]) if name in own else str(i) for name, i in zip(names, index, strict=True)
    ]
    return f"{site.name}[{', '.join(words)}]"
