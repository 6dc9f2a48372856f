"""The exact evidence of two dice against enumeration, normalisation and a published value."""

import math
from itertools import product

import pytest
import torch

from vitools.errors import NotSupportedError
from vitools.models import two_dice


def log_ratio(concentration, counts):
    """log B(α + n) - log B(α)."""
    before = torch.as_tensor(concentration, dtype=torch.float64)
    after = before + counts
    return (
        after.lgamma().sum() - after.sum().lgamma() - before.lgamma().sum() + before.sum().lgamma()
    )


def enumerated(rolls, alpha1, alpha2, beta):
    """log Σ p(x, z) over every single assignment (z¹, z²)^N."""
    pairs = list(product(range(len(alpha1)), range(len(alpha2))))
    terms = []
    for assignment in product(pairs, repeat=len(rolls)):
        sides1 = torch.zeros(len(alpha1), dtype=torch.float64)
        sides2 = torch.zeros(len(alpha2), dtype=torch.float64)
        faces = torch.zeros(len(beta), len(beta[0]), dtype=torch.float64)
        for (i, k), row in zip(assignment, rolls, strict=True):
            sides1[i] += 1
            sides2[k] += 1
            for x in row:
                faces[i + k, x] += 1
        terms.append(
            log_ratio(alpha1, sides1)
            + log_ratio(alpha2, sides2)
            + sum(log_ratio(b, f) for b, f in zip(beta, faces, strict=True))
        )
    return torch.logsumexp(torch.stack(terms), 0).item()


def test_published_value():
    counts = ((3, 0), (2, 1), (3, 0), (0, 3), (0, 3), (1, 2), (3, 0))
    evidence = two_dice.exact_log_evidence(
        [[0] * zeros + [1] * ones for zeros, ones in counts],
        sides1=2,
        sides2=2,
        faces=2,
        alpha1=(1.2, 0.8),
        alpha2=(0.7, 1.5),
        beta=((1.0, 0.5), (0.6, 1.4), (2.0, 0.9)),
    )
    assert evidence == pytest.approx(-12.79031163306505, abs=1e-10)


@pytest.mark.parametrize("rolls", [[[0, 2], [1, 1], [2, 0]], [[2], [2], [2]], [[0, 1, 1, 2]]])
def test_equals_the_sum_over_all_assignments(rolls):
    alpha1, alpha2 = (1.2, 0.4), (0.7, 1.5, 2.0)
    beta = ((1.0, 0.5, 2.0), (0.6, 1.4, 1.0), (2.0, 0.9, 0.7), (1.1, 1.3, 0.8))
    expected = enumerated(rolls, alpha1, alpha2, beta)
    actual = two_dice.exact_log_evidence(rolls, 2, 3, 3, alpha1, alpha2, beta)
    assert actual == pytest.approx(expected, abs=1e-10)


def test_sums_to_one_over_all_data():
    """Every ordered data set of two rows of two rolls with two faces."""
    beta = [[1.0, 2.0], [0.3, 0.4], [2.0, 1.0]]
    total = sum(
        math.exp(two_dice.exact_log_evidence([[a, b], [c, d]], 2, 2, 2, [0.5, 1.5], 0.7, beta))
        for a, b, c, d in product(range(2), repeat=4)
    )
    assert total == pytest.approx(1.0, abs=1e-12)


def test_refuses_what_is_too_large():
    data = two_dice.simulate(500, seed=0)
    with pytest.raises(NotSupportedError, match=r"different totals.*at most 20,000,000.*cavi"):
        two_dice.exact_log_evidence(data.rolls)
