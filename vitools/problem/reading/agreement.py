"""Does a model mean the same with its discrete latents enumerated? Asked once, at a few points.

Enumeration lays the values of a discrete latent along a new dim on the left. That goes wrong
silently where a model reduces or reorders its batch dims, or uses a latent outside its plate:
the sum then runs over the wrong thing. So every entry that a factor table claims for given
values is compared with the density the model gives when it is really run on those values.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from vitools.errors import ModelError, VitoolsError, first_words
from vitools.isolation import seeded
from vitools.problem.density.discrete import support_size
from vitools.problem.density.enumeration import FactorGraph
from vitools.problem.reading.inspection import ModelStructure
from vitools.problem.sites import Site


def trial(
    structure: ModelStructure,
    factors: Callable[[Mapping[str, Tensor]], FactorGraph],
    title: str,
    is_compared: bool,
) -> FactorGraph:
    """The factors at the example draw, after checking that enumeration means the same.

    Args:
        factors: the model's factors given ``{site: [*shape]}``, other discrete latents enumerated.
        is_compared: whether the model is run on given values too, which a large one cannot be.
    """
    # what reads a trajectory has been run on values
    discrete = {k: s for k, s in structure.latents.items() if s.support_values is not None}
    others = {k: v for k, v in structure.example.items() if k not in discrete}

    def given(values: Mapping[str, Tensor]) -> FactorGraph:
        with seeded(0), torch.no_grad():
            return factors({**others, **values})

    try:
        graph = given({})
        graph.components()
    except VitoolsError:
        raise
    except Exception as error:
        raise ModelError(
            f"{title} runs, but not with its discrete latents ({', '.join(discrete) or 'none'}) "
            f"enumerated: {type(error).__name__}: {first_words(error)}. An enumerated latent has a "
            "new dim on the left: index with it (table[z]) or compute elementwise, count dims from "
            "the right, and write long chains with pyro.markov."
        ) from error
    if is_compared:
        refuse_disagreement(graph, discrete, given, title)
    return graph


def refuse_disagreement(
    enumerated: FactorGraph,
    discrete: Mapping[str, Site],
    given: Callable[[Mapping[str, Tensor]], FactorGraph],
    title: str,
) -> None:
    """Raise :class:`ModelError` unless enumeration says what the model says.

    Args:
        enumerated: the factors with every discrete latent enumerated.
        given: the factors with the discrete latents held at values ``{site: [*shape]}``.
    """
    for chosen in _points(discrete) if discrete else ():
        values = {
            name: site.support_values[chosen[name]]
            for name, site in discrete.items()
            if site.support_values is not None
        }
        _compare(enumerated, given(values), chosen, title)


def _points(discrete: Mapping[str, Site]) -> Iterator[dict[str, Tensor]]:
    """Indices in the supports: a draw, and all first and all last values (``any``, ``all`` of a plate)."""
    with seeded(0):
        yield {
            name: torch.randint(support_size(site), site.batch_shape, device=site.device)
            for name, site in discrete.items()
        }
    for is_last in (False, True):
        yield {
            name: torch.full(site.batch_shape, (support_size(site) - 1) * is_last).to(site.device)
            for name, site in discrete.items()
        }


def _compare(
    enumerated: FactorGraph, given: FactorGraph, chosen: Mapping[str, Tensor], title: str
) -> None:
    """``chosen``: ``{site: indices of the given values in its support, [*batch_shape]}``."""
    direct = {f.name: f for f in given.factors}
    letter_of = {f.enumerated: f.name for f in enumerated.factors if f.enumerated is not None}
    copies = {read.letter: read for read in enumerated.reads}
    home = {f.name: f.plates for f in enumerated.factors}
    dim_of = enumerated.trace.symbol_to_dim
    for factor in enumerated.factors:
        table, expected = factor.log_density, direct[factor.name].log_density
        index, suspects, outside = [], [], []
        for d in table._pyro_dims:
            if d in copies:
                suspects.append(copies[d].site)
                at = {enumerated.plate_dims[p]: p for p in factor.plates}
                read = copies[d].of(chosen[copies[d].site])
                wide_dims = [i for i in range(-read.dim(), 0) if read.shape[i] > 1]
                outside += [copies[d].site] if set(wide_dims) - at.keys() else []
                index.append((read.squeeze(), "".join(at.get(i, "?") for i in wide_dims)))
                continue
            if d not in letter_of:
                index.append((torch.arange(enumerated.plate_sizes[d], device=table.device), d))
                continue
            name = letter_of[d]
            wide = [p for p in home[name] if enumerated.plate_sizes[p] > 1]
            suspects.append(name)
            outside += [name] if set(wide) - factor.plates else []
            index.append((chosen[name].squeeze(), "".join(sorted(wide, key=dim_of.__getitem__))))
        left = [enumerated.plate_letters[given.plate_of(d)] for d in expected._pyro_dims]
        values = letter_of.keys() | copies.keys()
        if not outside and {d for d in table._pyro_dims if d not in values} == set(left):
            found = table[_broadcast(index, left)] if index else table
            if torch.allclose(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
                continue
        suspects = outside or suspects
        raise ModelError(
            f"{title}: the density of site '{factor.name}' changes when the discrete latents "
            f"({', '.join(suspects or letter_of.values())}) are enumerated. An enumerated latent "
            "has a new dim on the left: use it only inside its own plate, index with it "
            "(table[z]) or compute elementwise, and never reduce or reorder its batch dims."
        )


def _broadcast(index: list[tuple[Tensor, str]], letters: list[str]) -> tuple[Tensor, ...]:
    """Index tensors with the named dims, aligned to the dims ``letters``."""
    return tuple(
        tensor.permute([names.index(d) for d in letters if d in names])[
            tuple(slice(None) if d in names else None for d in letters)
        ]
        for tensor, names in index
    )
