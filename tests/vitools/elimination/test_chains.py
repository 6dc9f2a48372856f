"""Cyclic reduction against dense linear algebra, enumeration and sequential recursions."""

import itertools
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools.elimination import discrete_chain
from vitools.elimination.chain import ChainFactor
from vitools.elimination.scan import affine_states, mapped_states

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def number(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 12), st.integers(1, 3), st.sampled_from([(), (3,)]))
def test_a_gaussian_chain_is_its_dense_matrix(seed, length, width, batch):
    generator = torch.Generator().manual_seed(seed)
    diagonal = number(*batch, length, width, width, generator=generator)
    diagonal = diagonal @ diagonal.mT + 6 * width * torch.eye(width, dtype=torch.float64)
    beside = number(*batch, length - 1, width, width, generator=generator)
    places = [slice(t * width, (t + 1) * width) for t in range(length)]
    dense = torch.zeros(*batch, length * width, length * width, dtype=torch.float64)
    for t, own in enumerate(places):
        dense[..., own, own] = diagonal[..., t, :, :]
        if t + 1 < length:
            dense[..., own, places[t + 1]] = beside[..., t, :, :]
            dense[..., places[t + 1], own] = beside[..., t, :, :].mT
    inverse = torch.linalg.inv(dense)
    factor = ChainFactor(diagonal, beside)
    assert not bool(factor.failed.any())
    half = factor.half_log_determinant()
    torch.testing.assert_close(half * 2, torch.logdet(dense), **EXACT)
    columns = number(*batch, length, width, 2, generator=generator)
    flat = columns.flatten(-3, -2)
    y = factor.half_solve(columns)
    wide = y.flatten(-3, -2)
    torch.testing.assert_close(wide.mT @ wide, flat.mT @ inverse @ flat, **EXACT)
    solved = factor.half_solve_transposed(y).flatten(-3, -2)
    torch.testing.assert_close(solved, inverse @ flat, **EXACT)
    own, beside = factor.inverse_blocks()
    for t, place in enumerate(places):
        torch.testing.assert_close(own[..., t, :, :], inverse[..., place, place], **EXACT)
        if t + 1 < length:
            truth = inverse[..., place, places[t + 1]]
            torch.testing.assert_close(beside[..., t, :, :], truth, **EXACT)


def test_a_pivot_that_is_none_is_found_at_its_place():
    diagonal = torch.ones(5, 1, 1, dtype=torch.float64)
    diagonal[3] = -1.0
    factor = ChainFactor(diagonal, torch.zeros(4, 1, 1, dtype=torch.float64))
    assert factor.failed.tolist() == [0, 0, 0, 1, 0]
    assert factor.pivots().flatten().tolist() == [1, 1, 1, 0, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**20),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([(), (2,)]),
    st.booleans(),
    st.booleans(),
)
def test_sums_over_trajectories_are_those_of_enumeration(
    seed, count, states, batch, by_steps, impossible
):
    generator = torch.Generator().manual_seed(seed)
    tables = number(*batch, count, states, states, generator=generator)
    if impossible:  # left to right: no way back
        tables = tables + torch.full_like(tables, -torch.inf).tril(-1).nan_to_num(
            0.0, 0.0, -torch.inf
        )
    tables.requires_grad_()
    limit, discrete_chain.MOST_STATES = discrete_chain.MOST_STATES, 0 if by_steps else 8
    try:
        total, pairs = discrete_chain.pair_marginals(tables)
        alone = discrete_chain.log_normaliser(tables)
    finally:
        discrete_chain.MOST_STATES = limit
    truth = torch.zeros(batch, dtype=torch.float64)
    shares = torch.zeros_like(tables)
    with torch.no_grad():
        for path in itertools.product(range(states), repeat=count + 1):
            steps = list(enumerate(itertools.pairwise(path)))
            weight = sum(tables[..., t, i, j] for t, (i, j) in steps).exp()
            truth += weight
            for t, (i, j) in steps:
                shares[..., t, i, j] += weight
        shares = shares / truth[..., None, None, None]
    torch.testing.assert_close(total, truth.log(), **EXACT)
    torch.testing.assert_close(alone, total, **EXACT)
    torch.testing.assert_close(pairs, shares, **EXACT)
    (gradient,) = torch.autograd.grad(alone.sum(), tables)
    torch.testing.assert_close(gradient, shares, **EXACT)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(0, 9), st.integers(1, 3), st.sampled_from([(), (2,)]))
def test_scans_are_the_recursions(seed, count, size, batch):
    generator = torch.Generator().manual_seed(seed)
    first = number(*batch, size, generator=generator)
    matrix = number(*batch, count, size, size, generator=generator)
    offset = number(*batch, count, size, generator=generator)
    x = [first]
    for t in range(count):
        x.append((matrix[..., t, :, :] @ x[-1].unsqueeze(-1)).squeeze(-1) + offset[..., t, :])
    torch.testing.assert_close(affine_states(first, matrix, offset), torch.stack(x, -2), **EXACT)
    start = torch.randint(size, batch, generator=generator)
    maps = torch.randint(size, (*batch, count, size), generator=generator)
    z = [start]
    for t in range(count):
        z.append(maps[..., t, :].gather(-1, z[-1].unsqueeze(-1)).squeeze(-1))
    assert torch.equal(mapped_states(start, maps), torch.stack(z, -1))


@pytest.mark.parametrize("kind", ["Gaussian", "discrete"])
def test_a_hundred_thousand_steps_take_a_fraction_of_a_second(kind):
    generator = torch.Generator().manual_seed(0)
    length = 100_000
    if kind == "Gaussian":
        diagonal = torch.full((length, 1, 1), 2.5, dtype=torch.float64)
        beside = -torch.ones(length - 1, 1, 1, dtype=torch.float64)

        def work():
            ChainFactor(diagonal, beside).inverse_blocks()
    else:
        tables = number(length - 1, 2, 2, generator=generator)

        def work():
            discrete_chain.pair_marginals(tables)

    work()
    started = time.process_time()
    work()
    assert time.process_time() - started < 0.3
