"""Steps of a loop, x_0, x_1, …, as one sequence x.

A model that loops over time names a site for each step. Where at least :data:`SHORTEST` sites count up
without a gap, each of one shape in the same plates, they are shown as one array with an axis of steps in
front.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vitools.problem.sites import Site

SHORTEST = 8
"""Steps from which sites are one sequence; fewer numbers may be names of coefficients."""

_NUMBERED = re.compile(r"(.*\D)(\d+)", re.ASCII)


@dataclass(frozen=True)
class Steps:
    """The sites of one sequence in their order.

    Attributes:
        stem: the name they have in common, which no other site has.
        sites: their own names.
        numbers: of the steps.
        site: a step as it would be under the name of all.
    """

    stem: str
    sites: tuple[str, ...]
    numbers: tuple[int, ...]
    site: Site


def numbered(names: Iterable[str]) -> dict[str, dict[int, str]]:
    """Names that end in a number by what stands before it, ``{"x_": {0: "x_0", …}}``, in their order."""
    families: dict[str, dict[int, str]] = {}
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found:
            families.setdefault(found[1], {})[int(found[2])] = name
    return {prefix: dict(sorted(family.items())) for prefix, family in families.items()}


def sequences(sites: Mapping[str, Site]) -> dict[str, Steps]:
    """The sequences among some sites, by stem.

    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> from vitools import Problem
    >>> def walk(y):
    ...     x = torch.tensor(0.0)
    ...     for t in range(9):
    ...         x = pyro.sample(f"x_{t}", dist.Normal(x, 1.0))
    ...     pyro.sample("y", dist.Normal(x, 1.0), obs=y)
    >>> steps = sequences(Problem(walk, torch.tensor(1.0)).latents)["x"]
    >>> steps.sites[0], steps.sites[-1], len(steps.numbers)
    ('x_0', 'x_8', 9)
    """
    made: dict[str, Steps] = {}
    for prefix, family in numbered(sites).items():
        stem, numbers = prefix.removesuffix("_"), tuple(family)
        steps = [_renamed(sites[name], stem) for name in family.values()]
        kinds = {(site.shape, site.plates, site.event_dim, site.dtype) for site in steps}
        is_long = len(numbers) >= SHORTEST and numbers[-1] - numbers[0] + 1 == len(numbers)
        if stem and is_long and len(kinds) == 1 and stem not in sites and stem not in made:
            made[stem] = Steps(stem, tuple(family.values()), numbers, steps[0])
    return made


def _renamed(site: Site, stem: str) -> Site:
    """A batch dim without a plate is named after its site."""
    own = f"{site.name}_dim_"
    plates = tuple(
        plate.replace(own, f"{stem}_dim_") if plate and plate.startswith(own) else plate
        for plate in site.plates
    )
    return replace(site, name=stem, plates=plates)
