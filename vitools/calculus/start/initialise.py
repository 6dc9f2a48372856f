"""Starting points: seeded, from the prior, spread out where a model has interchangeable parts.

Factors of a mixture or a factor model that start equal stay equal for ever. Gaussian means are
therefore drawn about the prior mean, Dirichlet concentrations and discrete probabilities are
jittered; scales start at their prior mean. Factor models are then turned to principal axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vitools.calculus.blocks.allocation import LogOfSumNode
from vitools.calculus.blocks.block import DenseBlock
from vitools.calculus.blocks.gates.gate import GateBlock
from vitools.calculus.blocks.predictor import CURVATURE, SLOPE, PredictorNode
from vitools.calculus.blocks.single import Block, DiscreteBlock, FamilyBlock
from vitools.calculus.model import ConjugateModel
from vitools.calculus.start.clusters import seed_clusters
from vitools.calculus.start.principal_axes import turn_to_principal_axes
from vitools.calculus.start.scales import settle_scales, unseen_scale
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.errors import OptionError
from vitools.families.moments import SiteMoments

# Standard deviation at which the latents below a curved function start.
NARROW = 0.1
# Variance that a predictor of them has at most.
WIDEST = 1.0
# Logit of a case that a start takes for sure: a prior precision of 1e6 in another case counts little.
SURE = 30.0


def initialise(
    model: ConjugateModel,
    seed: int,
    given: Mapping[str, SiteMoments] | None = None,
    *,
    from_data: bool = True,
) -> bool:
    """Set every block of the model to its starting point.

    Args:
        given: moments of sites; the other blocks follow from them by an update of each.
        from_data: whether clusters, scales and factors may be sought in the data.

    Returns:
        Whether any were.
    """
    generator = torch.Generator().manual_seed(seed)
    given = _over_time(model, given) if given else given
    streamed = [block for block in model.blocks if isinstance(block, StreamedBlock)]
    with torch.no_grad():
        for node in model.between:
            node.start(generator)
        for block in model.blocks:
            if block not in streamed:
                _start(model, block, generator)
        for node in model.predictors:
            _narrow(model, node)
        found = False
        for block in streamed:
            natural = seed_clusters(block, generator) if from_data else None
            if natural is None:
                model.update(block)
            else:
                found = True
                block.restore(natural)
                for parent in model.blocks:
                    if parent is not block and parent not in streamed:
                        model.update(parent)
        if from_data and not given:
            scaled, turned = settle_scales(model), turn_to_principal_axes(model)
            found = found or scaled or turned
        if given:
            _place_given(model, given)
        if model.predictors:
            _begin_curved(model)
        if model.allocations:
            _begin_sums(model, generator)
    return found


def _over_time(model: ConjugateModel, given: Mapping[str, SiteMoments]) -> dict[str, SiteMoments]:
    """The moments of steps that the model has as one site, along its time axis."""
    found = dict(given)
    for name, steps in model.trace.rolled.items():
        own = [step for step in steps if step in given]
        if not own:
            continue
        if len(own) < len(steps):
            missing = next(step for step in steps if step not in given)
            raise OptionError(
                f"start: it gives {own[0]!r} and not {missing!r}, which share a factor over time. Give all "
                "steps of a sequence, or none"
            )
        axis = len(model.latents[name].batch_shape) - 1
        moments = [found.pop(step) for step in steps]
        sds = [m.sd for m in moments if m.sd is not None]
        sd = torch.stack(sds, axis) if len(sds) == len(steps) else None
        found[name] = SiteMoments(torch.stack([m.mean for m in moments], axis), sd)
    return found


def _begin_sums(model: ConjugateModel, generator: torch.Generator) -> None:
    """A sweep from shares that are drawn: parts of a sum with equal priors are told apart."""
    for node in model.allocations:
        node.start(generator)
    for block in dict.fromkeys(model.order):
        if isinstance(block, LogOfSumNode):
            block.update(model.messages(block))
    for block in model.order:
        block.update(model.messages(block))


def _begin_curved(model: ConjugateModel) -> None:
    """A proper factor everywhere, so that the first steps under curved functions can be held to it."""
    for node in model.predictors:
        node.update(model.messages(node))
    for block in model.order:
        if block not in model.damped:
            block.update(model.messages(block))


def _place_given(model: ConjugateModel, given: Mapping[str, SiteMoments]) -> None:
    """Blocks of which only sums are kept follow from the others, as those that are not given do."""
    placed = []
    for block in model.blocks:
        if isinstance(block, DenseBlock) and any(name in given for name in block.names):
            named = [name for name in block.names if name in given]
            block.place({name: _of_distinct_rows(model, name, given) for name in named})
            placed.append(block)
    for block in model.order:
        if block not in placed:
            model.update(block)


def _of_distinct_rows(
    model: ConjugateModel, name: str, given: Mapping[str, SiteMoments]
) -> SiteMoments:
    """The moments of one row of each kind, where equal rows are one."""
    moments = given[name]
    for dim, plate in model.latents[name].plates.items():
        if plate.name in model.rows:
            moments = moments.select(dim, model.rows[plate.name].representative)
    return moments


@torch.no_grad()
def restart_inner(model: ConjugateModel) -> None:
    """Put the inner blocks back to a start without noise, where they have one."""
    for block in model.inner:
        if isinstance(block, FamilyBlock):
            block.start(model.messages(block, given=()), None)


def _start(model: ConjugateModel, block: Block, generator: torch.Generator) -> None:
    assert isinstance(block, DenseBlock)
    if block in model.damped:
        _start_narrow(block)
        return
    alone = unseen_scale(model, block)  # with the shape that data add, but not their rate
    prior = model.messages(block, given=()) if alone is None else alone
    if any(switch.selector in block.names for switch in model.prior_switches):
        block.restore(_sure(block.starting_point(prior, generator), block, generator))
    else:
        block.start(prior, generator)


def _sure(
    natural: tuple[Tensor, ...], block: Block, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Logits that all but choose a case for each element; a start draws how common each case is.

    A latent whose prior is selected holds its selector where it began, so undecided starts all end
    alike, where the narrowest of the priors leads.
    """
    gate = block.family if isinstance(block, GateBlock) else None
    drawn = natural[0] if gate is None else gate.logits(natural).clamp(0, 1)
    common = -_uniform((drawn.shape[-1],), generator).log()
    scores = common.log() - (-drawn.log()).log()  # the largest is a draw from the common weights
    if isinstance(block, DiscreteBlock | GateBlock):
        scores = torch.nn.functional.one_hot(scores.argmax(-1), drawn.shape[-1]).double()
    if gate is None:
        return (SURE * scores,)
    _, *normal = gate.coordinates(natural)
    return gate.from_coordinates((SURE * scores, *normal))


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _start_narrow(block: DenseBlock) -> None:
    """At zero, and so narrow that curved functions of it are what they are there."""
    zeros = torch.zeros(block.component_shape(0), dtype=torch.float64)
    block.restore(block.member_family.with_moments(zeros, torch.full_like(zeros, NARROW**2)))


def _narrow(model: ConjugateModel, node: PredictorNode) -> None:
    """The latents below a predictor so narrow that its own variance is moderate, whatever the data's scale.

    An E exp(η) of a wide η is past all rounding: 1e70 under a log scale of 1 + 100 d.
    """
    messages = model.messages(node)
    mean, square = (
        torch.as_tensor(messages[key], dtype=torch.float64).expand(node.statistic_shape(key))
        for key in (SLOPE, CURVATURE)
    )
    if square.dim() > mean.dim():  # the logits of a softmax
        square = square.diagonal(dim1=-2, dim2=-1)
    variance = square - mean**2
    excess = float(variance.max()) / WIDEST if variance.numel() else 1.0
    if not 1 < excess < math.inf:
        return
    for block in model.damped:
        if node.sites & set(block.names):
            linear, quadratic = block.natural
            block.restore((linear * excess, quadratic * excess))
