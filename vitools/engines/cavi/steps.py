"""The factor of a latent with a time axis, as one over the steps that the model wrote as sites."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vitools.calculus.blocks.block import Block, DenseBlock, moved, with_event
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.blocks.trajectory import TrajectoryBlock
from vitools.calculus.blocks.tree import TreeBlock
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.families.markov_chain import MarkovChain
from vitools.families.tree_normal import TreeNormal


def by_step(block: Block, trace: ModelTrace) -> dict[str | tuple[str, ...], Distribution]:
    """q of the block over the user's sites."""
    if isinstance(block, TrajectoryBlock):
        steps = trace.rolled[block.names[0]]
        sizes = torch.full((block.steps,), block.states)
        return {steps: MarkovChain(block.natural[0], sizes)}
    if isinstance(block, GaussianBlock | TreeBlock):
        names = tuple(step for name in block.names for step in trace.rolled.get(name, (name,)))
        return {names: _in_order(block.joint_distribution(), _order(block, trace))}
    assert isinstance(block, DenseBlock)
    (site,) = block.sites
    axis = time_axis(site)
    return {
        name: _at(block, site, axis, place) for place, name in enumerate(trace.rolled[site.name])
    }


def time_axis(site: TracedSite) -> int:
    """The axis of the steps of a rolled latent: after the plates."""
    return len(site.batch_shape) - 1


def _order(block: Block, trace: ModelTrace) -> Tensor:
    """Where the elements stand whose sites follow step by step, among those of site by site."""
    found, start = [], 0
    for site in block.sites:
        places = start + torch.arange(torch.Size(site.shape).numel()).reshape(site.shape)
        start += places.numel()
        if site.name in trace.rolled:
            places = places.movedim(time_axis(site), 0)
        found.append(places.flatten())
    return torch.cat(found)


def _in_order(joint: Distribution, order: Tensor) -> Distribution:
    if isinstance(joint, TreeNormal):
        return TreeNormal(
            joint.loc[order], joint.precision, joint.structure, joint.positions[order]
        )
    assert isinstance(joint, MultivariateNormal)
    covariance = joint.covariance_matrix[order][:, order]
    return MultivariateNormal(joint.loc[order], covariance_matrix=covariance, validate_args=False)


def _at(block: DenseBlock, site: TracedSite, axis: int, place: int) -> Distribution:
    """A step of a latent whose elements are independent."""
    natural = tuple(eta.expand(site.shape).select(axis, place) for eta in block.natural)
    made = block.family.to_distribution(natural)
    reference = None if site.reference is None else site.reference.select(axis, place)
    return with_event(moved(made, reference), _one_step(site))


def _one_step(site: TracedSite) -> TracedSite:
    shape = (*site.shape[: time_axis(site)], *site.shape[time_axis(site) + 1 :])
    return replace(site, batch_shape=site.batch_shape[:-1], shape=shape)
