"""Qubits and cavities: Bayes' rule written out, enumeration, and trajectories by simulation."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from vitools import Problem, cavi, exact
from vitools.errors import DataError, OptionError
from vitools.models.physics import cavity, qubit
from vitools.models.physics.cavity import Cavity, fock, poisson, thermal


def test_a_readout_is_bayes_rule():
    signal = torch.linspace(-3, 3, 13, dtype=torch.float64)
    found = qubit.readout_posterior(signal, (-0.8, 1.1), 0.7, excited=0.3)
    up = 0.3 * scipy.stats.norm(1.1, 0.7).pdf(signal)
    down = 0.7 * scipy.stats.norm(-0.8, 0.7).pdf(signal)
    np.testing.assert_allclose(found, up / (up + down), rtol=1e-12)


def test_shots_are_misjudged_as_often_as_said():
    shots = qubit.simulate_readout(200_000, excited=0.5, noise=0.8, seed=1)
    share = ((shots.signal > 0).long() != shots.state).double().mean().item()
    said = qubit.readout_error((-1.0, 1.0), 0.8)
    assert share == pytest.approx(said, abs=4 * math.sqrt(said * (1 - said) / 200_000))


def test_shots_calibrate_their_own_levels():
    shots = qubit.simulate_readout(2000, seed=2)
    fit = cavi(Problem(qubit.readout_model, shots.signal))
    level, excited = fit.mean()["level"].sort().values, fit.mean()["excited"].item()
    np.testing.assert_allclose(level, [-1, 1], atol=5 * fit.sd()["level"].max().item())
    assert min(abs(excited - 0.4), abs(excited - 0.6)) < 5 * fit.sd()["excited"].item()


def test_a_transition_solves_its_rate_equation():
    rates = np.array([[-0.3, 0.3], [1.2, -1.2]])
    np.testing.assert_allclose(
        qubit.transition(0.3, 1.2, 0.5), scipy.linalg.expm(0.5 * rates), atol=1e-14
    )


def test_a_watched_qubit_is_smoothed_forward_and_backward():
    watched = qubit.simulate_trajectory(80, seed=3)
    table = qubit.transition(qubit.UP, qubit.DOWN, qubit.STEP)
    fit = cavi(Problem(qubit.trajectory_model, watched.signal, table, qubit.SIGMA))
    ahead, evidence = qubit.filtered(watched.signal, table, qubit.SIGMA, (-1.0, 1.0))
    assert fit.elbo().value == pytest.approx(evidence, abs=1e-9)
    # backward messages, written out
    y, T = watched.signal.numpy(), table.numpy()
    like = scipy.stats.norm(np.array([-1.0, 1.0]), qubit.SIGMA).pdf(y[:, None])
    later, smooth = np.ones(2), []
    forward = np.stack([1 - ahead.numpy(), ahead.numpy()], 1)
    for t in range(79, -1, -1):
        joint = forward[t] * later
        smooth.insert(0, joint[1] / joint.sum())
        later = T @ (like[t] * later)
        later /= later.sum()
    np.testing.assert_allclose(fit.marginal("state").state_probs[:, 1], smooth, atol=1e-9)
    # at the end both have seen the same; before it the smoother is surer
    assert smooth[-1] == pytest.approx(ahead[-1].item(), abs=1e-12)


def test_later_signals_sharpen_what_is_known_of_earlier_states():
    table = qubit.transition(qubit.UP, qubit.DOWN, qubit.STEP)
    wrong = {"filter": 0.0, "smoother": 0.0}
    for seed in range(8):
        watched = qubit.simulate_trajectory(300, seed=seed)
        fit = cavi(Problem(qubit.trajectory_model, watched.signal, table, qubit.SIGMA))
        ahead, _ = qubit.filtered(watched.signal, table, qubit.SIGMA, (-1.0, 1.0))
        for name, p in (("filter", ahead), ("smoother", fit.marginal("state").state_probs[:, 1])):
            wrong[name] += ((p - watched.state) ** 2).mean().item() / 8
    assert wrong["smoother"] < 0.8 * wrong["filter"]


@pytest.mark.parametrize(
    ("number", "factor"),
    [(thermal(3.0, 600), 2.0), (poisson(3.0, 200), 1.0), (fock(5, 60), 4 / 5)],
)
def test_a_decay_raises_what_is_expected_of_bunched_light_only(number, factor):
    before = Cavity(number)
    after = before.clicked()
    assert before.bunching == pytest.approx(factor, abs=1e-9)
    assert after.mean / before.mean == pytest.approx(factor, abs=1e-9)
    # waiting in vain lowers it, unless the number is certain and each photon stays
    waited = before.waited(0.5)
    assert waited.mean < before.mean or factor == 4 / 5


@pytest.mark.parametrize("efficiency", [1.0, 0.6])
def test_silence_solves_its_rate_equation(efficiency):
    number = thermal(2.0, 40)
    n = np.arange(41.0)
    generator = np.diag(-1.3 * n) + np.diag((1 - efficiency) * 1.3 * n[1:], 1)
    expected = scipy.linalg.expm(0.7 * generator) @ number.numpy()
    quiet = Cavity(number, 1.3, efficiency)
    assert quiet.log_survival(0.7) == pytest.approx(math.log(expected.sum()), abs=1e-10)
    np.testing.assert_allclose(quiet.waited(0.7).number, expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize(("efficiency", "clicks_wanted"), [(1.0, 3), (0.6, 2)])
def test_posteriors_are_what_simulated_trajectories_end_with(efficiency, clicks_wanted):
    """The expected number given clicks in a window, over trajectories with that count."""
    number, until = thermal(3.0, 100), 0.8
    left, told = [], []
    for seed in range(6000):
        clicks, rest = cavity.simulate(number, until, efficiency=efficiency, seed=seed)
        if len(clicks) == clicks_wanted:
            left.append(rest)
            told.append(Cavity(number, 1.0, efficiency).watched(clicks, until).mean)
    miss = np.array(left) - np.array(told)
    assert len(miss) > 300
    assert abs(miss.mean()) < 3.5 * miss.std() / math.sqrt(len(miss))


def test_after_a_long_time_all_have_left():
    dark = Cavity(thermal(2.0), efficiency=0.5).waited(2000.0)
    assert dark.mean == 0.0
    # every photon is seen: as many clicks as photons
    assert torch.equal(cavity.clicks_table(1.0, 60.0, most=5), torch.eye(6).double())


def test_which_light_it_is_by_enumeration():
    example = cavity.example(0)
    clicks, sources, table = example.args
    problem = Problem(example.model, *example.args)
    evidence = example.model.exact_log_evidence(*example.args)
    assert exact(problem).elbo().value == pytest.approx(evidence, abs=1e-9)
    fit = cavi(problem)
    assert evidence - 0.1 < fit.elbo().value < evidence + 1e-9
    by_source = (sources @ table)[:, clicks].log().sum(1).softmax(0)
    assert by_source[1] > 0.99  # it was thermal light
    np.testing.assert_allclose(fit.marginal("source").probs, by_source, atol=0.01)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: Cavity(torch.tensor([0.5, 0.4])), OptionError, "sum to 1"),
        (lambda: Cavity(fock(1), efficiency=0.0), OptionError, "efficiency"),
        (lambda: Cavity(fock(0)).clicked(), DataError, "known to be empty"),
        (lambda: Cavity(fock(1)).waited(-1.0), OptionError, "time: expected at least 0"),
        (lambda: fock(7, most=5), OptionError, "0 to 5"),
        (lambda: thermal(0.0), OptionError, "positive mean"),
        (lambda: qubit.transition(0.0, 0.0, 1.0), OptionError, "not both 0"),
        (lambda: qubit.readout_posterior(torch.zeros(1), (0.0, 1.0), 0.0), OptionError, "noise"),
        (lambda: cavity.clicks_table(1.5, 1.0), OptionError, "efficiency <= 1"),
        (lambda: cavity.model(torch.ones(2), torch.eye(2), torch.eye(2)), DataError, "counts"),
    ],
)
def test_wrong_use_is_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()
