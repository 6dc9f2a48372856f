"""Mutual information by neighbours against closed forms and scikit-learn's implementation."""

import math

import pytest
import torch
from seeds import assert_within_errors
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from vitools.errors import DataError, OptionError
from vitools.information import entropy_of_samples, information_table, mutual_information
from vitools.isolation import seeded


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_normal_pairs_have_their_closed_form(correlation):
    x, noise = normal(2, 4000)
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    estimate = mutual_information(x, y)
    assert 0.003 < estimate.standard_error < 0.04
    exact = -0.5 * math.log(1 - correlation**2)
    assert abs(estimate.value - exact) < 3 * estimate.standard_error


def test_vectors_know_what_their_parts_know():
    """Independent pairs: information adds up, here 2 × ½ log(1 + 1/0.25)."""
    x = normal(4000, 2)
    y = x + 0.5 * normal(4000, 2, seed=1)
    estimate = mutual_information(x, y)
    assert abs(estimate.value - math.log(5)) < 3 * estimate.standard_error + 0.02 * math.log(5)


def test_standard_error_is_that_of_repetitions():
    pairs = [normal(2, 1000, seed=seed) for seed in range(30)]
    estimates = [mutual_information(x, x + noise) for x, noise in pairs]
    values = torch.tensor([estimate.value for estimate in estimates])
    stated = torch.tensor([estimate.standard_error for estimate in estimates])
    # sd of an sd from 30 values: 13 %; of the mean of 30 stated errors with 9 degrees each: 4 %.
    assert stated.square().mean().sqrt().item() == pytest.approx(values.std().item(), rel=0.42)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_information_lies_within_its_error(correlation):
    found = []
    for seed in range(25):
        x, noise = normal(2, 1000, seed=seed)
        found.append(mutual_information(x, correlation * x + math.sqrt(1 - correlation**2) * noise))
    assert_within_errors(found, -0.5 * math.log(1 - correlation**2), degrees=9)


def test_information_on_labels_lies_within_its_error():
    """x ~ N(±1, 1): log 2 less the entropy of the label that is left, by quadrature."""
    grid = torch.linspace(-12, 12, 4001)
    one, other = (torch.distributions.Normal(m, 1.0).log_prob(grid) for m in (1.0, -1.0))
    share = torch.sigmoid(one - other)
    left = -torch.special.xlogy(share, share) - torch.special.xlogy(1 - share, 1 - share)
    exact = math.log(2) - float(torch.trapezoid(left * (one.exp() + other.exp()) / 2, grid))
    found = []
    for seed in range(25):
        label = torch.rand(1000, generator=torch.Generator().manual_seed(seed)) < 0.5
        found.append(mutual_information(label, normal(1000, seed=seed + 100) + 2.0 * label - 1))
    assert_within_errors(found, exact, degrees=9)


def test_entropy_of_draws_lies_within_its_error():
    """Of a gamma, whose edge is hard, and of a correlated pair far from the origin in odd units."""
    gamma = torch.distributions.Gamma(torch.tensor(2.0), torch.tensor(3.0))
    root = torch.tensor([[100.0, 0.0], [80.0, 60.0]])
    pair = torch.distributions.MultivariateNormal(torch.tensor([1e4, 0.0]), scale_tril=root)
    for p, slack in ((gamma, 0.0), (pair, 0.03)):
        found = []
        for seed in range(25):
            with seeded(seed):
                found.append(entropy_of_samples(p.sample((1000,))))
        assert_within_errors(found, float(p.entropy()), degrees=9, slack=slack)


def test_it_is_the_estimate_of_scikit_learn():
    x, noise = normal(2, 500, seed=3)
    ours = mutual_information(x, x + noise).value
    theirs = mutual_info_regression(x[:, None], x + noise, n_neighbors=3, random_state=0)[0]
    assert ours == pytest.approx(theirs, abs=1e-6)  # it adds noise of 1e-10 against ties
    labels = (x + noise > 0).long() + (noise > 1).long()
    ours = mutual_information(x, labels).value
    theirs = mutual_info_classif(x[:, None], labels, n_neighbors=3, random_state=0)[0]
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_labels_told_apart_for_certain_give_their_entropy():
    labels = torch.arange(3000) % 3
    x = normal(3000) + 100 * labels
    assert mutual_information(x, labels).value == pytest.approx(math.log(3), abs=0.01)


def test_a_copy_is_not_known_exactly():
    x = normal(500)  # I(x; x) is infinite: what N draws show of it has no error that they show
    found = mutual_information(x, x)
    assert found.standard_error == math.inf
    assert "exact" not in str(found)


def test_table_is_of_pairs():
    x = normal(500, 2)
    table = information_table(x, torch.stack([x[:, 1], normal(500, seed=9)], 1))
    assert table.shape == (2, 2)
    assert table[1, 0] > 2
    assert table[[0, 0, 1], [0, 1, 1]].abs().max() < 0.2


def test_bad_input_is_refused():
    x = normal(60)
    with pytest.raises(DataError, match="60 and 59"):
        mutual_information(x, x[1:])
    with pytest.raises(DataError, match=r"at least 50 points.* got 40"):
        mutual_information(x[:40], x[:40])
    with pytest.raises(DataError, match="y: column 0 is constant"):
        mutual_information(x, torch.ones(60))
    for shape in ([0], [0, 2], [60, 0]):
        with pytest.raises(DataError, match=r"x: expected draws, got none \(shape"):
            mutual_information(torch.zeros(shape), x)
        with pytest.raises(DataError, match=r"x: expected draws, got none \(shape"):
            entropy_of_samples(torch.zeros(shape))
    with pytest.raises(DataError, match="x: expected finite"):
        mutual_information(x.log(), x)
    with pytest.raises(
        OptionError, match="neighbours: expected a whole number of at least 1, got 0"
    ):
        mutual_information(x, x, neighbours=0)
    with pytest.raises(DataError, match="more than 3 points of each"):
        mutual_information(x, torch.arange(60) == 0)
    with pytest.raises(OptionError, match="both are labels"):
        mutual_information(torch.arange(60), torch.arange(60))
    with pytest.raises(
        OptionError, match=r"y: expected labels of shape \[N\], got shape \[30, 2\]"
    ):
        mutual_information(x[:30], torch.arange(60).reshape(30, 2))
    with pytest.raises(OptionError, match=r"x: expected a tensor of a floating type .* got list"):
        entropy_of_samples([1.0, 2.0])
    repeated = (torch.arange(200) % 2).double()
    for other in (repeated, repeated.long()):  # information log 2, which the formulas do not give
        with pytest.raises(DataError, match=r"x, y: .* more than 3 .* that are equal"):
            mutual_information(repeated, other)
    with pytest.raises(DataError, match="more than 3 that are equal"):
        entropy_of_samples((x > 0).double())
