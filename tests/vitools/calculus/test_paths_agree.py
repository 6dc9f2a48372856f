"""Folding, collapsing and streaming are shortcuts: without them every model gives the same numbers."""

import pytest
import torch
from test_conjugate_models import CASES

import vitools.calculus.reduction.folding as folding
import vitools.calculus.reduction.rows as rows
import vitools.calculus.streams.stream_plan as streaming
from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.model import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.calculus.streams.streamed import StreamedBlock

MODELS = [name for name, (_, _, options) in CASES.items() if "factorised" not in options]


def is_discrete(block):
    return isinstance(block, DiscreteBlock | StreamedBlock)


def discrete_first(model):
    """An order in which the state of discrete blocks before the sweep does not matter."""
    discrete = [b for b in model.order if is_discrete(b)]
    return [*discrete, *(b for b in model.order if b not in discrete)]


def bounds(model, start, sweeps=3):
    """Bounds from a start given for the continuous blocks; discrete ones start uniform."""
    for block in model.blocks:
        if not is_discrete(block):
            block.restore(start[block.names])
    for block in model.blocks:
        if isinstance(block, DiscreteBlock):
            block.restore((torch.zeros(*block.batch_shape, *block.supports),))
    model.order = discrete_first(model)
    for block in model.blocks:
        if isinstance(block, StreamedBlock):
            model.update(block)
    found = []
    for _ in range(sweeps):
        model.sweep()
        found.append(model.elbo())
    return found


def compared(name, monkeypatch):
    function, args, options = CASES[name]
    plain = ConjugateModel(function, args, **options)
    initialise(plain, 0)
    start = {b.names: b.natural for b in plain.blocks if not is_discrete(b)}
    monkeypatch()
    other = ConjugateModel(function, args, **options)
    return bounds(plain, start), bounds(other, start)


@pytest.mark.parametrize("name", MODELS)
def test_without_folding(name, monkeypatch):
    contract = folding._contract

    def unfold():
        monkeypatch.setattr(folding, "DENSE_SELECTION", 0)
        # Terms without latents are numbers and must still become one.
        monkeypatch.setattr(
            folding, "_contract", lambda g, kept, sizes: g if kept else contract(g, kept, sizes)
        )
        monkeypatch.setattr(streaming, "can_stream", lambda *_: False)

    plain, other = compared(name, unfold)
    assert other == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_without_streaming(name, monkeypatch):
    plain, other = compared(
        name, lambda: monkeypatch.setattr(streaming, "can_stream", lambda *_: False)
    )
    assert other == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_without_collapsing(name, monkeypatch):
    plain, other = compared(
        name, lambda: monkeypatch.setattr(rows, "distinct_rows", lambda *_: None)
    )
    assert other == pytest.approx(plain, rel=1e-9)
