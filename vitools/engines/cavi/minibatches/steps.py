"""The steps that coordinate ascent on minibatches is made of, on the model of one batch.

Blocks *inside* are factors of single rows, those *outside* of what all rows share.
"""

from __future__ import annotations

import math

import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.block import Block, DenseBlock
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.blocks.predictor import PredictorNode
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.errors import NotSupportedError
from vitools.families.family import Natural
from vitools.problem.sites import listed

Naturals = dict[str, Natural]
"""Natural parameters of the blocks outside, by their sites."""

SETTLED, FINELY, NEARLY = 1e-10, 1e-6, 1e-4
"""Relative rise of the bound at which the rows' own factors are at their optimum; as near it as a bound needs where the
others are at none, and as a step needs."""
MOST_LOCAL = 100
NARROW = 0.1
"""Standard deviation at which a row's latents below a curved function start."""


def outside(model: ConjugateModel) -> list[DenseBlock]:
    """The factors of what all rows share."""
    return [b for b in model.blocks if b not in model.weights and isinstance(b, DenseBlock)]


def naturals(model: ConjugateModel) -> Naturals:
    return {block.title: block.natural for block in outside(model)}


def between(first: Naturals, second: Naturals, rate: float) -> Naturals:
    """η + ρ (η' - η)."""
    return {
        title: tuple(a + rate * (b - a) for a, b in zip(parts, second[title], strict=True))
        for title, parts in first.items()
    }


def added(first: Naturals, second: Naturals) -> Naturals:
    return {
        title: tuple(a + b for a, b in zip(parts, second[title], strict=True))
        for title, parts in first.items()
    }


@torch.no_grad()
def enter(model: ConjugateModel, natural: Naturals, settled: float = SETTLED) -> None:
    """Put the blocks outside at these factors and those inside at their optimum.

    Args:
        settled: relative rise of the bound at which they are there.
    """
    for block in outside(model):
        given = natural[block.title]
        if block.natural and [x.shape for x in block.natural] != [x.shape for x in given]:
            raise NotSupportedError(_differs(block))
        block.restore(given)
    for own in model.weights:
        if isinstance(own, DenseBlock) and own in model.damped:
            zeros = torch.zeros(own.component_shape(0), dtype=torch.float64)
            own.restore(own.member_family.with_moments(zeros, torch.full_like(zeros, NARROW**2)))
        elif isinstance(own, DenseBlock):
            own.start(model.messages(own, given=()), None)
    for node in model.predictors:
        node.start()
    for part in model.order:
        if isinstance(part, StreamedBlock):
            part.update(model.messages(part))
    settle(model, settled)


@torch.no_grad()
def settle(model: ConjugateModel, settled: float = SETTLED) -> None:
    """Update the blocks inside until the bound rests."""
    moving = [b for b in model.order if b in model.weights or isinstance(b, PredictorNode)]
    if not model.weights or (len(model.weights) == 1 and not model.predictors):
        for block in moving:  # each follows from the others at once
            block.update(model.messages(block))
        return
    before, step = -math.inf, 1.0
    for _ in range(MOST_LOCAL):
        state = model.state()
        for block in moving:
            if step < 1 and block in model.damped and isinstance(block, DenseBlock):
                _go(block, model, step)
            else:
                block.update(model.messages(block))
        bound = float(model.bound())
        if bound < before - settled * abs(before) and step > 1e-3:  # a curved step that overshot
            model.load(state)
            step /= 2
        elif bound - before <= settled * abs(bound):
            return
        else:
            before = bound


@torch.no_grad()
def step_outside(model: ConjugateModel, rate: float) -> None:
    """A natural-gradient step of each block outside, in the order of updates."""
    for block in model.order:
        if isinstance(block, PredictorNode):
            block.update(model.messages(block))
        elif block not in model.weights:
            assert isinstance(block, DenseBlock)
            _go(block, model, rate)


def _go(block: DenseBlock, model: ConjugateModel, rate: float) -> None:
    target = block.gathered(model.messages(block))
    pairs = zip(block.natural, target, strict=True)
    block.restore(tuple(a + rate * (b - a) for a, b in pairs))


@torch.no_grad()
def targets(model: ConjugateModel, share: float) -> Naturals:
    """Of each block outside the optimum given all others, times a number."""
    return {
        block.title: tuple(share * x for x in block.gathered(model.messages(block)))
        for block in outside(model)
    }


def bound_of(model: ConjugateModel) -> float:
    return float(model.bound())


def bound_and_step(model: ConjugateModel, rate: float) -> tuple[float, Naturals]:
    """The bound, then a natural-gradient step."""
    bound = bound_of(model)
    step_outside(model, rate)
    return bound, naturals(model)


def bound_and_targets(model: ConjugateModel, share: float) -> tuple[float, Naturals]:
    return bound_of(model), targets(model, share)


def refuse_unfit(model: ConjugateModel, name: str, plate: str, option: str) -> None:
    """Raise for a model of which some rows say nothing of all, or not in the same terms.

    Args:
        name: of the model.
        plate: that the rows stand in.
        option: that asks for some of them.
    """
    if model.allocations:
        names = listed([block.title for block in model.allocations])
        raise NotSupportedError(
            f"{option}: the logarithm of a sum of latents ({names}) in model '{name}' is not yet taken "
            f"from some of the rows. Leave {option} out."
        )
    for block in outside(model):
        local = [
            site.name
            for site in block.sites
            if any(other.name == plate for other in site.plates.values())
        ]
        if local:
            raise NotSupportedError(
                f"{option}: one factor ties the rows of '{plate}' through "
                f"{listed([repr(name) for name in local])}, so that a row says nothing without the "
                f"others. Leave {option} out, or keep sites apart with joint=() or factorised=."
            )
        if not block.adds_messages:
            raise NotSupportedError(
                f"{option}: the elements of {block.title!r} are updated one after another, so that what "
                f"some rows say of them does not add up. Leave {option} out, or let them share a factor: "
                "joint=() keeps discrete sites apart, without factorised= elements have a covariance."
            )
        if isinstance(block, FreeFormBlock) and block.has_data:
            raise NotSupportedError(
                f"{option}: data of single rows stand inside functions of site {block.title!r}, so "
                f"that other rows have other statistics of it. Leave {option} out, or fit by svi()."
            )


def _differs(block: Block) -> str:
    return (
        f"batch_rows: the factor of {block.title!r} has another form from one batch to the next (its "
        "structure follows the rows). Keep its sites apart with joint=(), or leave batch_rows out."
    )
