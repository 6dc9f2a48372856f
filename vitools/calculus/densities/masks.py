"""Masked latents: an element that nothing else reads drops out; one that is read keeps its prior.

A mask takes the log density of an element out of the model. Where no other factor depends on that
element, it is gone, and its factor of q is left aside (padded rows, the ``…_unobserved`` sites of
``obs_mask``). Where one does, a flat prior would be left: as everywhere in vitools, such a site
keeps its prior, that is, a mask silences observations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.tracing.trace import ModelTrace, TracedSite


def with_priors_that_matter(trace: ModelTrace, terms: Sequence[ClosedTerm]) -> ModelTrace:
    """The trace without the masks of latents that mask nothing, or what is read by a term."""
    unmasked = {
        name: replace(site, mask=None)
        for name, site in trace.sites.items()
        if site.is_latent
        and site.mask is not None
        and (bool(site.mask.all()) or _is_read(site, site.mask, terms))
    }
    return replace(trace, sites={**trace.sites, **unmasked}) if unmasked else trace


def _is_read(site: TracedSite, mask: Tensor, terms: Sequence[ClosedTerm]) -> bool:
    masked = ~mask.expand(site.batch_shape)
    return any(
        bool((masked & where_read(term, atom, site)).any())
        for term in terms
        for atom in term.atoms
        if atom.site == site.name
    )


def where_read(term: ClosedTerm, atom: Atom, site: TracedSite) -> Tensor:
    """Where the term depends on the elements of the site (at least there), of its batch shape."""
    batch = atom.labels[: len(site.batch_shape)]
    weight = torch.ones(site.batch_shape, dtype=torch.bool)
    for constant in term.constants:
        weight = weight & _spread(constant.tensor != 0, constant.labels, batch)
    for selection in term.selections:
        if selection.target in batch:
            hit = torch.zeros(selection.size, dtype=torch.bool)
            hit[selection.index.reshape(-1)] = True
            weight = weight & _spread(hit, (selection.target,), batch)
    if atom.function == "indicator":
        weight = weight & _varies(term, atom, batch)
    return weight


def _varies(term: ClosedTerm, atom: Atom, batch: Sequence[int]) -> Tensor:
    """Where the term tells the cases of a discrete site apart."""
    case = atom.labels[-1]
    elsewhere = [label for other in term.atoms if other is not atom for label in other.labels]
    elsewhere += [s.target for s in term.selections]
    if case in elsewhere:
        return torch.ones((), dtype=torch.bool)
    varies = torch.zeros((), dtype=torch.bool)
    for constant in term.constants:
        if case in constant.labels:
            varies = varies | _spread(_differs(constant, case), constant.labels, batch)
    return varies


def _differs(constant: Constant, label: int) -> Tensor:
    return constant.tensor != constant.tensor.narrow(constant.labels.index(label), 0, 1)


def _spread(holds: Tensor, labels: Sequence[int], batch: Sequence[int]) -> Tensor:
    """Booleans over ``labels``, true where any over the other labels is, in the order of ``batch``."""
    others = [i for i, label in enumerate(labels) if label not in batch]
    holds = holds.any(others) if others else holds
    kept = [label for label in labels if label in batch]
    order = sorted(range(len(kept)), key=lambda i: batch.index(kept[i]))
    sizes = iter(holds.permute(order).shape)
    return holds.permute(order).reshape([next(sizes) if x in kept else 1 for x in batch])
