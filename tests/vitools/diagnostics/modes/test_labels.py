"""Labels that a density does not tell apart: found, and matched."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem
from vitools.diagnostics.modes.labels import Exchange, Relabelled, exchanges
from vitools.diagnostics.modes.scan import Mode
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

DATA = torch.tensor([-2.4, -2.1, -1.9, 1.8, 2.0, 2.2, 2.5]).double()


def mixture(x, concentration=(2.0, 2.0, 2.0), slopes=False):
    """Three components in a plate, their shares, and rows with a discrete latent."""
    shares = pyro.sample("shares", dist.Dirichlet(torch.tensor(concentration).double()))
    with pyro.plate("components", 3):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(()).double(), 3.0))
        sd = pyro.sample("sd", dist.LogNormal(torch.zeros(()).double(), 0.5))
    offset = torch.zeros_like(x)
    if slopes:  # three of something else
        design = torch.arange(3 * len(x)).reshape(len(x), 3).double().sin()
        slope = pyro.sample("slope", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
        offset = design @ slope
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(shares))
        pyro.sample("x", dist.Normal(mean[z] + offset, sd[z]), obs=x)


def markov(x):
    """Hidden states: rows and columns of the matrix change places together."""
    start = torch.ones(2).double() / 2
    turn = pyro.sample("turn", dist.Dirichlet(torch.ones(2, 2).double() * 2).to_event(1))
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2).double(), 3.0).to_event(1))
    z = pyro.sample("z0", dist.Categorical(start))
    for i, row in enumerate(x[:3]):
        z = pyro.sample(f"z{i + 1}", dist.Categorical(turn[z]))
        pyro.sample(f"x{i}", dist.Normal(mean[z], 0.5), obs=row)


def plain(x):
    """No mixture: parameters that may change places are two answers."""
    t = pyro.sample("t", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(t.sum(-1), 1.0), obs=x)


def told(x):
    mixture(x)


told.invariants = lambda values: {"sorted": values["mean"].sort(-1).values}

COMPONENTS = {("shares", -1), ("mean", -1), ("sd", -1)}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (mixture, [COMPONENTS]),
        (lambda x: mixture(x, slopes=True), [COMPONENTS]),
        (lambda x: mixture(x, concentration=(1.0, 2.0, 2.0)), []),
        (markov, [{("turn", -1), ("turn", -2), ("mean", -1)}]),
        (plain, []),
        (told, []),
    ],
    ids=["mixture", "beside slopes", "unequal prior", "hidden Markov", "no mixture", "invariants"],
)
def test_axes_that_change_places_together(model, found):
    assert [set(one.axes) for one in exchanges(Problem(model, DATA))] == found


def test_a_copy_is_known_whatever_its_labels_are():
    problem = Problem(mixture, DATA)
    space = UnconstrainedSpace(problem)
    values = {
        "shares": torch.tensor([0.5, 0.3, 0.2]),
        "mean": torch.tensor([-2.0, 1.9, 2.3]),
        "sd": torch.tensor([0.5, 0.8, 0.3]),
    }
    values = {name: value.double() for name, value in values.items()}
    point = space.from_values(values)
    precision = 100.0 * torch.eye(space.size).double()
    mode = Mode(values, 0.0, 1.0, 1, point, precision)
    (exchange,) = exchanges(problem)
    copies = Relabelled(problem, (exchange,))
    turned = exchange.permuted(values, torch.tensor([2, 0, 1]))
    assert torch.equal(turned["mean"], torch.tensor([2.3, -2.0, 1.9]).double())
    assert copies.has_one(mode, space.from_values(turned).unsqueeze(0))
    other = values | {"mean": torch.tensor([-2.0, 2.3, 1.9]).double()}  # of one site alone
    assert not copies.has_one(mode, space.from_values(other).unsqueeze(0))
    two = [mode, Mode(turned, 0.0, 0.5, 1, space.from_values(turned), precision)]
    assert copies.of_one(two) == [mode]


def test_rows_and_columns_follow_their_labels():
    exchange = Exchange((("turn", -2), ("turn", -1), ("mean", -1)), 2)
    values = {"turn": torch.tensor([[0.9, 0.1], [0.4, 0.6]]), "mean": torch.tensor([1.0, 5.0])}
    swapped = exchange.permuted(values, torch.tensor([1, 0]))
    assert swapped["turn"].tolist() == torch.tensor([[0.6, 0.4], [0.1, 0.9]]).tolist()
    expected = torch.tensor([[0.9, 1.0], [0.6, 5.0]])
    torch.testing.assert_close(exchange.features(values), expected)
