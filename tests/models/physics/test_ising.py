"""Spins: enumeration, transfer matrices, published magnetisations, long sampling, and mean field."""

import math

import numpy as np
import pytest
import torch

from vitools import Problem, cavi
from vitools.errors import OptionError
from vitools.models.physics import ising
from vitools.models.physics.ising import Spins, lattice


def args(spins):
    return spins.bonds, spins.coupling, spins.field


@pytest.mark.parametrize("shape", [(4, 4), (2, 5), (5, 2), (7, 1)])
def test_transfer_matrices_sum_over_all_states(shape):
    spins = lattice(tuple(n for n in shape if n > 1), 0.35, 0.15)
    total = spins.log_weight(ising.states(math.prod(shape))).logsumexp(0).item()
    assert ising.log_partition(shape, 0.35, 0.15) == pytest.approx(total, abs=1e-10)


def test_a_ring_is_solved_by_its_two_eigenvalues():
    ring = lattice((9,), 0.6, 0.2, periodic=True)
    total = ring.log_weight(ising.states(9)).logsumexp(0).item()
    assert ising.chain_log_partition(9, 0.6, 0.2) == pytest.approx(total, abs=1e-10)
    # ⟨s⟩ is the slope of log Z / N in h
    slope = (
        ising.chain_log_partition(400, 0.6, 0.2 + 1e-5)
        - ising.chain_log_partition(400, 0.6, 0.2 - 1e-5)
    ) / (2e-5 * 400)
    assert ising.chain_magnetisation(0.6, 0.2) == pytest.approx(slope, abs=1e-7)


def test_the_square_lattice_orders_where_onsager_says():
    critical = math.log(1 + math.sqrt(2)) / 2
    assert ising.onsager_magnetisation(critical - 1e-9) == 0
    assert 0 < ising.onsager_magnetisation(critical + 1e-9) < 0.12
    assert ising.onsager_magnetisation(0.5) == pytest.approx(0.911319, abs=1e-6)  # Yang's formula
    # mean field orders too early, at z K = 1
    assert ising.mean_field_magnetisation(0.249, 0.0, 4) < 0.05
    assert ising.mean_field_magnetisation(0.3, 0.0, 4) > 0.5


def test_mean_field_is_the_fixed_point_and_its_bound_lies_below():
    spins = lattice((4, 4), 0.15, 0.2)
    fit = cavi(Problem(ising.model, *args(spins)), factorised="all")
    m = torch.stack([2 * fit.marginal(f"up_{i}").mean - 1 for i in range(16)])
    np.testing.assert_allclose(m, torch.tanh(spins.field + spins.matrix @ m), atol=1e-5)
    p = torch.stack([(1 - m) / 2, (1 + m) / 2])
    entropy = -(p * p.log()).sum()
    bound = 0.5 * m @ spins.matrix @ m + spins.field @ m + entropy - 16 * math.log(2)
    assert fit.elbo().value == pytest.approx(bound.item(), abs=1e-8)
    exact = ising.exact_log_evidence(*args(spins))
    assert exact - 0.4 < fit.elbo().value < exact
    np.testing.assert_allclose(m, ising.magnetisation(spins), atol=0.05)


def test_long_sampling_agrees_with_enumeration():
    spins = lattice((3, 4), 0.3, 0.1)
    draws = ising.sample(spins, 64 * 100, seed=2)
    by_chain = draws.reshape(-1, 64, 12).mean(0)
    miss = (by_chain.mean(0) - ising.magnetisation(spins)) / (by_chain.std(0) / 8)
    assert miss.abs().max() < 3.5


def test_a_boltzmann_machine_learns_the_moments_of_its_data():
    truth = lattice((2, 3), 0.4, -0.1)
    every = ising.states(6)
    generator = torch.Generator().manual_seed(0)
    rows = torch.multinomial(truth.log_weight(every).softmax(0), 20_000, True, generator=generator)
    learnt = ising.learn(every[rows])
    data = every[rows]
    p = learnt.log_weight(every).softmax(0)
    first, second = learnt.bonds.T
    for seen, found in (
        (data.mean(0), p @ every),
        ((data[:, first] * data[:, second]).mean(0), p @ (every[:, first] * every[:, second])),
    ):
        np.testing.assert_allclose(found, seen, atol=1e-4)
    q = truth.log_weight(every).softmax(0)
    # 21 parameters: 2 N KL is near χ² of 21 degrees of freedom
    assert 2 * 20_000 * (q * (q / p).log()).sum() < 21 + 4 * math.sqrt(42)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: lattice((1, 3), 0.1), "whole numbers from 2"),
        (lambda: lattice((2, 3), 0.1, periodic=True), "3 sites at least"),
        (lambda: Spins(torch.tensor([[0, 0]]), torch.ones(1), torch.ones(2)), "two different"),
        (lambda: Spins(torch.tensor([[0, 1]]), torch.ones(2), torch.ones(2)), "coupling"),
        (lambda: ising.states(21), "1 to 20 spins"),
        (lambda: ising.log_partition((3, 21), 0.1), "20 columns"),
        (lambda: ising.sample(lattice((2,), 0.1), 10), "multiple of 64"),
        (lambda: ising.learn(torch.zeros(3, 2)), "±1"),
    ],
)
def test_wrong_use_is_refused(wrong, message):
    with pytest.raises(OptionError, match=message):
        wrong()
