"""The two-dice Pyro model against its formula, its data, and its refusals."""

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch.distributions import Dirichlet
from torch.fx.experimental.proxy_tensor import make_fx

from vitools.errors import DataError, OptionError
from vitools.models import two_dice
from vitools.models.two_dice.rows import unique_rows

SIZES = {"sides1": 2, "sides2": 3, "faces": 3}
HYPER = {
    "alpha1": (1.2, 0.8),
    "alpha2": (0.7, 1.5, 2.0),
    "beta": ((1.0, 0.5, 2.0), (0.6, 1.4, 1.0), (2.0, 0.9, 0.7), (1.1, 1.3, 0.8)),
}


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def formula(rolls, values):
    """log p(x, z, π, ρ), row by row, from torch.distributions."""
    total = Dirichlet(tensor(HYPER["alpha1"])).log_prob(values["pi1"])
    total = total + Dirichlet(tensor(HYPER["alpha2"])).log_prob(values["pi2"])
    for s, concentration in enumerate(HYPER["beta"]):
        total = total + Dirichlet(tensor(concentration)).log_prob(values["rho"][s])
    for n, row in enumerate(rolls):
        i, k = values["z1"][n, 0], values["z2"][n, 0]
        total = total + values["pi1"][i].log() + values["pi2"][k].log()
        for x in row:
            total = total + values["rho"][i + k, x].log()
    return total


@pytest.fixture
def data():
    return two_dice.simulate(7, 4, **SIZES, **HYPER, seed=1)


def log_joint(rolls, values):
    conditioned = poutine.condition(two_dice.model, data=values)
    return poutine.trace(conditioned).get_trace(rolls, **SIZES, **HYPER).log_prob_sum()


def test_log_joint_is_the_formula(data):
    torch.testing.assert_close(
        log_joint(data.rolls, data.truth), formula(data.rolls, data.truth), rtol=1e-12, atol=0
    )


def test_log_joint_vectorised_and_traced(data):
    others = [two_dice.simulate(7, 4, **SIZES, **HYPER, seed=s).truth for s in range(5)]
    stacked = {name: torch.stack([o[name] for o in others]) for name in data.truth}
    expected = torch.stack([formula(data.rolls, o) for o in others])
    with pyro.validation_enabled(False):
        vectorised = torch.vmap(lambda v: log_joint(data.rolls, v))(stacked)
        graph = make_fx(lambda x, v: log_joint(x, v))(data.rolls, data.truth)
        traced = graph(data.rolls, others[0])
    torch.testing.assert_close(vectorised, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(traced, expected[0], rtol=1e-12, atol=0)


def test_hidden_throws_can_be_enumerated(data):
    """Pyro sums z1 and z2 out to the same value as a loop over all pairs of each row."""
    values = {name: data.truth[name] for name in ("pi1", "pi2", "rho")}
    no_rows = torch.zeros(0, 4, dtype=torch.long)
    expected = formula(no_rows, values)
    for row in data.rolls:
        pairs = [
            values["pi1"][i] * values["pi2"][k] * values["rho"][i + k, row].prod()
            for i in range(2)
            for k in range(3)
        ]
        expected = expected + torch.stack(pairs).sum().log()
    conditioned = config_enumerate(poutine.condition(two_dice.model, data=values))

    def empty_guide(*args, **kwargs):
        pass

    loss = TraceEnum_ELBO(max_plate_nesting=2).loss(
        conditioned, empty_guide, data.rolls, **SIZES, **HYPER
    )
    assert -loss == pytest.approx(expected.item(), rel=1e-12)


def test_simulation_is_seeded_and_leaves_the_global_state():
    before = torch.get_rng_state()
    first = two_dice.simulate(20, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        again = two_dice.simulate(20, seed=3)
    other = two_dice.simulate(20, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.rolls, again.rolls)
    assert all(torch.equal(first.truth[name], again.truth[name]) for name in first.truth)
    assert not torch.equal(first.rolls, other.rolls)
    assert len(pyro.get_param_store()) == 0


def test_simulation_has_the_stated_frequencies():
    """Faces and throws fall as often as the truth says, within 4 standard errors."""
    data = two_dice.simulate(40_000, 3, **SIZES, **HYPER, seed=2)
    truth = data.truth
    num_rows = len(data.rolls)
    for throw, sides in (("z1", "pi1"), ("z2", "pi2")):
        frequency = torch.bincount(truth[throw].flatten(), minlength=len(truth[sides])) / num_rows
        error = (truth[sides] * (1 - truth[sides]) / num_rows).sqrt()
        assert ((frequency - truth[sides]).abs() < 4 * error).all()
    sums = (truth["z1"] + truth["z2"]).expand_as(data.rolls)
    for s, probability in enumerate(truth["rho"]):
        rolls = data.rolls[sums == s]
        frequency = torch.bincount(rolls, minlength=3) / len(rolls)
        error = (probability * (1 - probability) / len(rolls)).sqrt()
        assert ((frequency - probability).abs() < 4 * error).all()


def test_a_draw_of_the_prior_is_a_dirichlet():
    """E π¹ over many simulated data sets is α¹/Σα¹, within 4 standard errors."""
    draws = torch.stack(
        [two_dice.simulate(1, 1, **SIZES, **HYPER, seed=s).truth["pi1"][0] for s in range(400)]
    )
    error = draws.std() / len(draws) ** 0.5
    assert (draws.mean() - 1.2 / 2.0).abs() < 4 * error


def test_hyperparameters_are_repeated_and_follow_the_dtype_of_tensors():
    prior = two_dice.prior_concentrations(2, 2, 3, alpha1=1.5, beta=[1.0, 2.0, 3.0])
    assert prior.alpha1.tolist() == [1.5, 1.5]
    assert prior.alpha2.tolist() == [2.0, 2.0]
    assert prior.beta.tolist() == [[1.0, 2.0, 3.0]] * 3
    assert {value.dtype for value in prior} == {torch.float64}
    single = two_dice.prior_concentrations(2, 2, 3, alpha1=torch.tensor(1.5).float())
    assert {value.dtype for value in single} == {torch.float32}
    from_numpy = two_dice.prior_concentrations(2, 2, 3, beta=np.ones((3, 3), dtype=np.float32))
    assert from_numpy.beta.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha1": -1.0}, "alpha1: Dirichlet concentrations are positive"),
        ({"alpha1": torch.tensor([1.0, -1.0, 1.0])}, "alpha1: Dirichlet concentrations"),
        ({"alpha2": [1.0, float("nan"), 1.0, 1.0]}, "alpha2: Dirichlet concentrations"),
        ({"alpha2": [1.0, 2.0]}, r"alpha2: expected a number or shape \[4\].*got shape \[2\]"),
        ({"beta": torch.ones(6, 5)}, r"shape \[6, 6\] or \[6\].*got shape \[6, 5\]"),
        ({"beta": "many"}, "beta: expected numbers"),
        ({"sides1": 0}, "sides1: expected a positive integer, got 0"),
        ({"faces": 2.5}, "faces: expected a positive integer, got 2.5"),
    ],
)
def test_impossible_hyperparameters_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        two_dice.simulate(5, **options)
    with pytest.raises(OptionError, match=message):
        two_dice.hand_derived_cavi(torch.zeros(3, 2, dtype=torch.long), **options)


def test_bad_rolls_are_named():
    rolls = torch.zeros(20, 3, dtype=torch.long)
    rolls[12, 1] = 7
    expected = r"site 'rolls': probabilities for 6 faces, observed value 7 in row 12.*data as 0-5"
    with pytest.raises(DataError, match=expected):
        two_dice.hand_derived_cavi(rolls)
    with pytest.raises(DataError, match="observed value -1 in row 0"):
        two_dice.exact_log_evidence([[-1]])
    for wrong, message in [
        (torch.zeros(4, dtype=torch.long), r"got shape \[4\]"),
        (torch.zeros(0, 3, dtype=torch.long), r"got shape \[0, 3\]"),
        (torch.zeros(4, 3), "got dtype torch.float64"),
    ]:
        with pytest.raises(DataError, match=message):
            two_dice.distinct_rows(wrong)
        with pytest.raises(DataError, match=message):
            two_dice.model(wrong)
    with pytest.raises(DataError, match="expected a table"):
        two_dice.distinct_rows([[0, 1], [1]])
    with pytest.raises(DataError, match="got list"):
        two_dice.model([[0, 1]])
    with pytest.raises(OptionError, match="num_rows"):
        two_dice.simulate(0)


@pytest.mark.parametrize("faces", [3, 40])
def test_distinct_rows_carry_all_rows(faces):
    generator = torch.Generator().manual_seed(0)
    rolls = torch.randint(faces - 3, faces, (200, 4), generator=generator)
    rows = two_dice.distinct_rows(rolls, faces)
    counts = torch.nn.functional.one_hot(rolls, faces).sum(1).double()
    assert torch.equal(rows.counts[rows.row_index], counts)
    assert rows.multiplicity.sum() == 200
    assert len(rows.counts) == len(torch.unique(counts, dim=0)) <= 15
    assert torch.equal(torch.bincount(rows.row_index).double(), rows.multiplicity)


@pytest.mark.parametrize(("largest", "columns"), [(2, 4), (9, 40), (10**9, 7)])
def test_distinct_rows_of_large_tables(largest, columns):
    """Also where one integer cannot hold a row."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, largest + 1, (30, columns), generator=generator)
    table = few[torch.randint(0, 30, (500,), generator=generator)]
    distinct, index = unique_rows(table)
    expected, expected_index = torch.unique(table, dim=0, return_inverse=True)
    assert torch.equal(distinct, expected)
    assert torch.equal(index, expected_index)
