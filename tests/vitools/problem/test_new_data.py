"""Predictions of other data: rows, and groups that the fit knows beside those it does not."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi
from vitools.errors import NotSupportedError, OptionError

NOISE, SPREAD = 0.5, 2.0


def groups(y, group, count):
    """Effects of known scale: all of it a Gaussian."""
    with pyro.plate("groups", count):
        effect = pyro.sample("effect", dist.Normal(0.0, SPREAD))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(effect[group], NOISE), obs=y)


Y = torch.tensor([1.0, 1.4, -2.0, 0.3])
GROUP = torch.tensor([0, 0, 1, 1])
FIT = cavi(Problem(groups, Y, GROUP, 2).with_coords(groups=["ann", "bob"]))
N = 20_000


def exact(rows):
    """Mean and sd of a group's effect given its rows; of no rows the prior's."""
    precision = len(rows) / NOISE**2 + 1 / SPREAD**2
    return sum(rows) / NOISE**2 / precision, precision**-0.5


def check(found, expected):
    """Means and standard deviations [rows] within five of their errors."""
    mean = torch.tensor([m for m, _ in expected])
    sd = torch.tensor([(s**2 + NOISE**2) ** 0.5 for _, s in expected])
    assert bool(((found.mean(0) - mean).abs() < 5 * sd / N**0.5).all())
    assert bool(((found.std(0) / sd - 1).abs() < 5 / (2 * N) ** 0.5).all())


ANN, BOB, NEW = exact([1.0, 1.4]), exact([-2.0, 0.3]), (0.0, SPREAD)


@pytest.mark.parametrize(
    ("labels", "group", "expected"),
    [
        (["ann", "bob"], [1, 0, 1], [BOB, ANN, BOB]),
        (["bob", "ann"], [1, 0, 1], [ANN, BOB, ANN]),
        (["ann", "bob", "cid"], [2, 1, 0], [NEW, BOB, ANN]),
        (["cid", "bob"], [0, 1, 1], [NEW, BOB, BOB]),
        (["cid", "dan"], [0, 1, 1], [NEW, NEW, NEW]),
        (None, [0, 1, 2], [ANN, BOB, NEW]),
    ],
)
def test_groups_are_known_by_their_labels_and_new_ones_follow_their_prior(labels, group, expected):
    size = len(labels) if labels else 3
    at = Problem(groups, torch.zeros(3), torch.tensor(group), size)
    at = at.with_coords(groups=labels) if labels else at
    found = FIT.predictive(N, seed=1, at=at)["y"]
    assert found.shape == (N, 3)
    check(found, expected)


def test_rows_of_one_new_group_share_its_effect():
    at = Problem(groups, torch.zeros(2), torch.tensor([2, 2]), 3)
    found = FIT.predictive(N, seed=2, at=at)["y"]
    correlation = torch.corrcoef(found.mT)[0, 1]
    expected = SPREAD**2 / (SPREAD**2 + NOISE**2)
    assert abs(correlation - expected) < 5 * (1 - expected**2) / N**0.5


def rows(x, y):
    """A latent of each row, and two of all."""
    slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        own = pyro.sample("own", dist.Normal(x @ slope, 1.0))
        pyro.sample("y", dist.Normal(own, NOISE), obs=y)


def test_latents_of_rows_are_drawn_anew():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    fit = cavi(Problem(rows, x, torch.tensor([3.0, -3.0, 0.0])))
    slope = fit.marginal("slope")
    new = torch.tensor([[2.0, 1.0]])
    found = fit.predictive(N, seed=3, at=Problem(rows, new, torch.zeros(1)))["y"][:, 0]
    variance = (new @ slope.covariance_matrix @ new.mT).item() + 1 + NOISE**2
    assert abs(found.mean() - (new @ slope.mean).item()) < 5 * (variance / N) ** 0.5
    assert abs(found.var() / variance - 1) < 5 * (2 / N) ** 0.5


def test_the_same_seed_gives_the_same_data():
    at = Problem(groups, torch.zeros(2), torch.tensor([0, 2]), 3)
    one, other = (FIT.predictive(5, seed=4, at=at)["y"] for _ in range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


WRONG = [
    (groups, OptionError, "at expects a Problem of the same model and other data, got function"),
    (Problem(rows, torch.eye(2), torch.zeros(2)), NotSupportedError, r"only in the fit: effect; only there: own, slope"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "kind", "words"), WRONG)
def test_wrong_problems_are_refused(at, kind, words):
    with pytest.raises(kind, match=words):
        FIT.predictive(2, at=at)


def test_coefficients_of_another_size_are_refused():
    def wide(x, y):
        slope = pyro.sample("slope", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(x @ slope, NOISE), obs=y)

    fit = cavi(Problem(wide, torch.eye(2), torch.ones(2)))
    with pytest.raises(
        NotSupportedError, match=r"'slope' has shape \[2\] in the fit and \[3\] there"
    ):
        fit.predictive(2, at=Problem(wide, torch.eye(3), torch.ones(3)))
