"""Two fair dice, a singular point of the model: what happens exactly there, and from other starts.

From q(π¹) = q(π²) uniform and all faces of ρ alike, every update keeps q its own mirror image (both
dice reversed, and ρ with them): ρ_s and ρ_{S-1-s} can never come to differ.
"""

from itertools import pairwise

import pytest
import torch

from vitools import Problem, cavi
from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.models import two_dice

SIDES = {"sides1": 3, "sides2": 3}
FAIR = two_dice.Concentrations(
    *(torch.full(shape, 2.0, dtype=torch.float64) for shape in ((3,), (3,), (5, 6)))
)


@pytest.fixture(scope="module")
def rolls():
    """Both dice are fair to a thousandth."""
    return two_dice.simulate(num_rows=200, alpha1=1e6, alpha2=1e6, **SIDES, seed=4).rolls


@pytest.mark.parametrize("factorisation", ["factorised", "joint"])
def test_exactly_there_q_stays_its_own_mirror_image(rolls, factorisation):
    fit = two_dice.hand_derived_cavi(
        rolls, **SIDES, factorisation=factorisation, init=FAIR, max_sweeps=20, tol=0
    )
    for mirrored in (*fit.concentrations, fit.responsibilities.table()):
        dims = [0] if mirrored.dim() < 3 else [1, 2]
        torch.testing.assert_close(mirrored.flip(dims), mirrored, rtol=1e-9, atol=1e-12)
    if factorisation == "joint":  # where z¹ is not updated before z², the dice are alike as well
        torch.testing.assert_close(fit.alpha1_hat, fit.alpha2_hat, rtol=1e-12, atol=0)
    assert min(after - before for before, after in pairwise(fit.elbo_history)) > -1e-9


@pytest.mark.parametrize("factorisation", ["factorised", "joint"])
def test_the_derived_updates_agree_and_starts_of_their_own_do_better(rolls, factorisation):
    joint = [("z1", "z2")] if factorisation == "joint" else ()
    problem = Problem(two_dice.model, rolls, 3, 3)
    model = ConjugateModel(problem.model, problem.args, joint=joint)
    initialise(model, 0)
    for name, start in zip(("pi1", "pi2", "rho"), FAIR, strict=True):
        model.block_of[name].restore((start - 1,))
    for name in ("z1", "z2"):
        block = model.block_of[name]
        if factorisation == "factorised":
            block.restore((torch.zeros_like(block.natural[0]),))
    bounds = []
    for _ in range(20):
        model.sweep()
        bounds.append(model.elbo())
    by_hand = two_dice.hand_derived_cavi(
        rolls, **SIDES, factorisation=factorisation, init=FAIR, max_sweeps=20, tol=0
    )
    assert bounds[-1] == pytest.approx(by_hand.elbo_history[-1], rel=1e-12)
    fit = cavi(problem, joint=joint, max_sweeps=200)
    assert fit.elbo().value > bounds[-1] + 10
