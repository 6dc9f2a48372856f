"""Further looks: their figures, and verdicts that no seed changes."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from vitools import Problem
from vitools.diagnostics import Accuracy, Grade, Moments, judge
from vitools.diagnostics.verdict import looks
from vitools.diagnostics.verdict.looks import Figures, measured
from vitools.diagnostics.weights.khat import khat_estimate
from vitools.posterior import Estimate, GaussianPosterior, Status

FLAT = dist.ImproperUniform(constraints.real, torch.Size(), torch.Size())


def standard():
    """N(0, 1). Weights of a normal with sd s < 1 have a tail of shape 1 - s²."""
    u = pyro.sample("u", FLAT)
    pyro.factor("target", -(u**2) / 2)


def normal(mean, sd):
    at = torch.tensor([mean]).double()
    return GaussianPosterior(
        Problem(standard),
        location=at,
        scale_tril=torch.tensor([[sd]]).double(),
        location_error=torch.zeros_like(at),
        engine="by hand",
        status=Status.CONVERGED,
    )


def pareto(count, k, seed=0):
    """Log weights with a tail of shape k, to a constant."""
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()
    return -k * (1 - uniform).log()


def test_parts_have_a_quarter_of_the_error():
    """Of weights with a known tail, sixteen parts are near it, and nearer than one."""
    fit, log_weights = normal(0.0, 1.0), pareto(16_000, 0.5)
    one = measured(fit, {}, log_weights[:1000], None, 1000)
    all_ = measured(fit, {}, log_weights, None, 1000)
    assert one.khat == khat_estimate(log_weights[:1000])
    assert all_.khat.standard_error == pytest.approx(one.khat.standard_error / 4, rel=0.1)
    assert abs(all_.khat.value - 0.5) < 3 * all_.khat.standard_error
    assert all_.num_samples == 16_000


def test_the_error_of_parts_is_their_scatter():
    fit = normal(0.0, 1.0)
    found = [measured(fit, {}, pareto(16_000, 0.6, seed), None, 1000).khat for seed in range(20)]
    scatter = float(torch.tensor([khat.value for khat in found]).std())
    assert 0.6 < scatter / found[0].standard_error < 1.5  # χ of 19: 0.68 to 1.32 at 2 sd


def test_weights_that_only_many_draws_show_to_be_bounded_are_judged_by_all():
    """One in fifty draws has fifty times the weight: the tail of all is nothing else."""
    uniform = torch.rand(64_000, generator=torch.Generator().manual_seed(3)).double()
    log_weights = torch.where(uniform < 0.02, math.log(50.0), 0.0) + 0.1 * uniform
    found = measured(normal(0.0, 1.0), {}, log_weights, None, 1000)
    assert found.khat == khat_estimate(log_weights)
    assert found.khat.value < 0
    assert found.is_certain
    assert found.threshold == 0.7


def test_a_tail_that_all_draws_make_less_of_neither_rejects_nor_vouches():
    """A normal of sd 1.2 for Student's t of 3: weights rise for ever, but their tail is thin."""
    x = 1.2 * torch.randn(64_000, generator=torch.Generator().manual_seed(5)).double()
    log_weights = -2 * torch.log1p(x**2 / 3) + (x / 1.2) ** 2 / 2
    found = measured(normal(0.0, 1.0), {}, log_weights, None, 1000)
    assert khat_estimate(log_weights).value < 0.7 < found.khat.value
    assert not found.is_certain


def with_a_tail(share):
    uniform = torch.rand(64_000, generator=torch.Generator().manual_seed(3)).double()
    is_far = torch.rand(64_000, generator=torch.Generator().manual_seed(4)) < share
    return torch.where(is_far, 2.0 + pareto(64_000, 0.3), 0.5 * uniform)


def test_a_tail_that_a_part_seldom_sees_tightens_the_limits():
    """A part of 4000 has one draw of it, all have twenty."""
    log_weights = with_a_tail(1 / 3000)
    found = measured(normal(0.0, 1.0), {}, log_weights, None, 1000)
    assert found.deep_khat == khat_estimate(log_weights)
    assert found.khat.value < 0.2 < 0.5 < found.deep_khat.value < 0.85


def test_one_that_makes_k_high_counts_in_full():
    log_weights = with_a_tail(1 / 1000)
    found = measured(normal(0.0, 1.0), {}, log_weights, None, 1000)
    assert found.khat == found.deep_khat == khat_estimate(log_weights)
    assert found.khat.value > 1
    assert not found.is_certain


def test_all_figures_shift_to_the_worse():
    own = Accuracy(Estimate(0.2, 0.02), "a", Estimate(0.8, 0.08), "b", {}, {})
    found = Figures(1000, Estimate(0.5, 0.1), 0.67, Estimate(0.5, 0.1), own, own, own).shifted(2.0)
    assert found.khat.value == pytest.approx(0.7)
    assert found.accuracy.mean_error.value == pytest.approx(0.24)
    assert found.correction.sd_ratio.value == pytest.approx(0.8 * math.exp(-0.2))
    unknown = Estimate(math.inf, math.inf)
    nothing = Figures(1000, unknown, 0.67, unknown, None, None, None)
    assert nothing.shifted(-3.0) == nothing


@pytest.mark.parametrize(
    ("mean", "sd", "grade"),
    [
        (0.05, 0.95, Grade.TRUST),
        (0.3, 0.95, Grade.CARE),
        (0.0, 0.7, Grade.CARE),
        (1.5, 0.5, Grade.REJECT),
    ],
)
def test_a_grade_is_the_same_for_all_seeds(mean, sd, grade):
    fit = normal(mean, sd)
    assert {judge(fit, seed=seed).verdict.grade for seed in range(4)} == {grade}


def test_a_reference_changes_no_measurement_of_the_weights(monkeypatch):
    """Nor does its own error make for more draws of the fit."""
    calls = []

    def counted(self, num_samples, seed=0):
        calls.append((num_samples, seed))
        return draw(self, num_samples, seed)

    draw = GaussianPosterior.sample_with_log_weights
    monkeypatch.setattr(GaussianPosterior, "sample_with_log_weights", counted)
    zero = torch.zeros(()).double()
    rough = Moments(zero, zero + 1.0, zero + 0.1, zero + 0.1)
    alone = judge(normal(0.1, 0.95))
    of_alone = list(calls)
    calls.clear()
    beside = judge(normal(0.1, 0.95), {"u": rough})
    assert calls == of_alone
    assert (beside.khat, beside.khat_limit) == (alone.khat, alone.khat_limit)
    assert beside.verdict.grade is Grade.CARE
    assert "undecided: the mean of u is" in beside.verdict.reason


def test_the_figure_that_decided_is_the_one_that_is_told():
    """k̂ is 1 - s²; of 64 000 draws, in parts of 4000 with the limit of so many."""
    found = judge(normal(0.0, 0.9))
    assert found.verdict.grade is Grade.TRUST
    assert found.khat_limit == 0.7
    assert f"k̂ {found.khat.value:.2f} of at most 0.70" in found.verdict.reason
    assert abs(found.khat.value - (1 - 0.9**2)) < 4 * found.khat.standard_error
    assert found.khat != found.weights.khat


def test_what_is_dear_is_not_looked_at_again(monkeypatch):
    monkeypatch.setattr(looks, "MOST_BYTES", 1.0)
    reason = judge(normal(0.0, 0.7)).verdict.reason
    assert "draws, " not in reason
