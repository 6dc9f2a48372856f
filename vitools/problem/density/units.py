"""Independent units of data, and the log-likelihood of each.

A unit is what remains independent given the values at hand: an entry of an observed site, or,
where observations share a discrete latent that is summed out, all of them together.
"""

from collections.abc import Mapping

from torch import Tensor

from vitools.problem.density.enumeration import FactorGraph
from vitools.problem.density.factors import SiteFactor
from vitools.problem.sites import Plate, Site

Unit = tuple[list[SiteFactor], tuple[str, ...]]
"""Factors that belong together, and the plates, left to right, along which units lie."""


def unit_components(
    graph: FactorGraph, observed: Mapping[str, Site], plates: Mapping[str, Plate]
) -> dict[str, Unit]:
    """``{name: unit}``; observed sites that share units are joined as ``"x+y"``."""
    found = {}
    for members in graph.components():
        name = "+".join(f.name for f in members if f.name in observed)
        if name:
            common = frozenset.intersection(*(f.plates for f in members))
            names = [plate for plate, letter in graph.plate_letters.items() if letter in common]
            found[name] = (members, tuple(sorted(names, key=lambda p: plates[p].dim)))
    return found


def unit_log_likelihood(
    graph: FactorGraph,
    members: list[SiteFactor],
    along: tuple[str, ...],
    plates: Mapping[str, Plate],
) -> Tensor:
    """log p of every unit, one dim for each plate it lies along."""
    letters = [graph.plate_letters[plate] for plate in along]
    tensor = graph.contract(members, frozenset(letters))
    order = [tensor._pyro_dims.index(d) for d in letters if d in tensor._pyro_dims]
    return tensor.permute(order).reshape([plates[plate].size for plate in along])


def prior_components(
    graph: FactorGraph, observed: Mapping[str, Site], drawn: Mapping[str, Site]
) -> dict[str, list[SiteFactor]]:
    """``{latent: factors}`` that no data share; latents that share discrete ones are joined as ``"x+y"``."""
    found = {}
    for members in graph.components():
        names = [f.name for f in members]
        latents = [name for name in names if name in drawn]
        if latents and not any(name in observed for name in names):
            found["+".join(latents)] = members
    return found
