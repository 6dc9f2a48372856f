"""Symmetries of two dice against the model's own joint density, and what they leave unchanged."""

import pytest
import torch
from pyro import poutine

from vitools.errors import OptionError
from vitools.models import two_dice

SYMMETRIC_BETA = ((1.0, 0.5), (0.6, 1.4), (1.0, 0.5))
PRIORS = [
    ({"sides1": 2, "sides2": 2, "faces": 2}, 4),
    ({"sides1": 2, "sides2": 3, "faces": 2}, 2),
    ({"sides1": 2, "sides2": 2, "faces": 2, "alpha1": [1.0, 2.0], "alpha2": [1.0, 2.0]}, 2),
    ({"sides1": 2, "sides2": 2, "faces": 2, "alpha1": [1.0, 2.0], "alpha2": [2.0, 1.0]}, 2),
    ({"sides1": 2, "sides2": 2, "faces": 2, "alpha1": 1.0, "alpha2": 2.0}, 2),
    ({"sides1": 2, "sides2": 2, "faces": 2, "beta": SYMMETRIC_BETA}, 4),
    ({"sides1": 2, "sides2": 2, "faces": 2, "beta": ((1.0, 2.0), (1.0, 1.0), (1.0, 1.0))}, 2),
    ({"sides1": 2, "sides2": 3, "faces": 2, "alpha1": [1.0, 2.0]}, 1),
]
ALL = [two_dice.Symmetry(swap, reverse) for swap in (False, True) for reverse in (False, True)]


@pytest.mark.parametrize(("options", "size"), PRIORS)
def test_the_group_is_exactly_what_leaves_the_joint_density_unchanged(options, size):
    data = two_dice.simulate(9, 3, **options, seed=1)

    def log_joint(values):
        conditioned = poutine.condition(two_dice.model, data=values)
        return poutine.trace(conditioned).get_trace(data.rolls, **options).log_prob_sum()

    group = two_dice.symmetries(**options)
    assert len(group) == size
    assert group[0] == two_dice.Symmetry(swap=False, reverse=False)
    expected = log_joint(data.truth)
    for element in group:
        torch.testing.assert_close(log_joint(element(data.truth)), expected, rtol=1e-12, atol=0)
    for element in ALL:
        if element not in group and (not element.swap or options["sides1"] == options["sides2"]):
            assert abs(log_joint(element(data.truth)) - expected) > 1e-3


@pytest.mark.parametrize("element", ALL)
def test_each_is_its_own_inverse_and_invariants_do_not_see_it(element):
    values = two_dice.simulate(5, sides1=3, sides2=3, seed=2).truth
    copy = element(values)
    back = element(copy)
    assert all(torch.equal(back[name], values[name]) for name in values)
    before, after = two_dice.invariants(values), two_dice.invariants(copy)
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-12, atol=0)


def draws(count):
    truths = [two_dice.simulate(4, sides1=3, sides2=3, seed=s).truth for s in range(count)]
    return {name: torch.stack([t[name] for t in truths]) for name in truths[0]}


def test_match_undoes_what_was_done_to_each_draw():
    reference = {name: value[0] for name, value in draws(1).items()}
    group = two_dice.symmetries(3, 3)
    copies = [element(reference) for element in group]
    scrambled = {
        name: torch.stack([copies[i % 4][name] for i in range(6)]).unflatten(0, (2, 3))
        for name in reference
    }
    scrambled["other"] = torch.arange(6.0).reshape(2, 3)
    matched = two_dice.match(scrambled, reference, group)
    for name, value in reference.items():
        assert torch.equal(matched[name], value.expand(2, 3, *value.shape))
    assert torch.equal(matched["other"], scrambled["other"])


def test_match_together_moves_all_draws_alike():
    values = draws(5)
    reference = {name: value[0] for name, value in values.items()}
    group = two_dice.symmetries(3, 3)
    near = {name: 0.9 * reference[name] + 0.1 * values[name] for name in ("pi1", "pi2", "rho")}
    near["z1"], near["z2"] = values["z1"], values["z2"]
    for element in group:
        matched = two_dice.match(element(near), reference, group, together=True)
        for name in near:
            torch.testing.assert_close(matched[name], near[name], rtol=0, atol=0)


def test_invariants_are_the_predictive_probabilities():
    """Summed pair by pair, and with any leading sample dims."""
    values = draws(6)
    batched = {name: value.unflatten(0, (2, 3)) for name, value in values.items()}
    result = two_dice.invariants(batched)
    for r in range(6):
        roll, pair = torch.zeros(6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
        w = torch.zeros(5, dtype=torch.float64)
        for i in range(3):
            for k in range(3):
                probability = values["pi1"][r, i] * values["pi2"][r, k]
                rho = values["rho"][r, i + k]
                w[i + k] += probability
                roll += probability * rho
                pair += probability * torch.outer(rho, rho)
        at = (r // 3, r % 3)
        torch.testing.assert_close(result["roll_probability"][at], roll, rtol=1e-12, atol=0)
        torch.testing.assert_close(result["pair_probability"][at], pair, rtol=1e-12, atol=0)
        expected = w.sort(descending=True).values
        torch.testing.assert_close(result["w_sorted"][at], expected, rtol=1e-12, atol=0)


def test_missing_sites_are_named():
    with pytest.raises(OptionError, match="missing pi2, rho"):
        two_dice.invariants({"pi1": torch.ones(3)})
