"""The verdict's rules, one row each."""

import math
import re

import pytest

from vitools.diagnostics import Accuracy, Grade, reach_verdict
from vitools.diagnostics.verdict.verdict import undecided
from vitools.posterior import Estimate, Status


def accuracy(error=0.0, ratio=1.0, error_se=0.0, ratio_se=0.0) -> Accuracy:
    return Accuracy(
        Estimate(error, error_se), "rho[4,2]", Estimate(ratio, ratio_se), "mu[0]", {}, {}
    )


TRUST, CARE, REJECT = Grade

RULES = [
    (TRUST, Status.CONVERGED, 0.3, None, "no reference"),
    (TRUST, Status.CONVERGED, 0.3, accuracy(0.2, 0.9), "within 0.20 sd"),
    (CARE, Status.CONVERGED, 0.55, None, "nothing confirms the moments"),
    (CARE, Status.CONVERGED, 0.71, None, "above its threshold 0.70, give or take 0.10"),
    (REJECT, Status.CONVERGED, 0.91, None, "above its threshold"),
    (REJECT, Status.CONVERGED, math.inf, None, "above its threshold"),
    (CARE, Status.CONVERGED, 0.9, accuracy(0.1, 1.1), "agree with the reference"),
    (CARE, Status.CONVERGED, 0.3, accuracy(0.5), r"mean of rho\[4,2\] is 0.50 sd"),
    (REJECT, Status.CONVERGED, 0.3, accuracy(1.5), r"mean of rho\[4,2\] is 1.50 sd"),
    (CARE, Status.CONVERGED, 0.3, accuracy(0.22), r"0.22 sd from the reference$"),
    (CARE, Status.CONVERGED, 0.3, accuracy(1.5, error_se=0.7), r"1.50 sd from the reference"),
    (CARE, Status.CONVERGED, 0.3, accuracy(0.4, error_se=0.3), "too few draws to tell"),
    (CARE, Status.CONVERGED, 0.3, accuracy(ratio=0.5), r"mu\[0\] is too narrow"),
    (CARE, Status.CONVERGED, 0.3, accuracy(ratio=2.0), "too wide"),
    (CARE, Status.CONVERGED, 0.3, accuracy(ratio=0.74), "too narrow: 0.74"),
    (TRUST, Status.CONVERGED, 0.3, accuracy(ratio=0.76), "within"),
    (CARE, Status.CONVERGED, 0.3, accuracy(ratio=1.26), "too wide"),
    (REJECT, Status.CONVERGED, 0.3, accuracy(ratio=0.2), "too narrow: 0.20"),
    (REJECT, Status.CONVERGED, 0.3, accuracy(ratio=0.0), "too narrow"),
    (REJECT, Status.CONVERGED, 0.9, accuracy(2.0), "mean of"),
    (CARE, Status.CONVERGED, 0.3, accuracy(ratio=4.0, ratio_se=1.0), "too wide"),
    (CARE, Status.STOPPED_AT_LIMIT, 0.3, None, "stopped at limit"),
    (CARE, Status.INTERRUPTED, 0.3, None, "interrupted"),
    (REJECT, Status.STOPPED_AT_LIMIT, 0.95, None, "above"),
    (REJECT, Status.DIVERGED, 0.3, accuracy(), "diverged"),
    (REJECT, Status.NOT_MIXED, None, None, "not mixed"),
    (TRUST, Status.SAMPLED, None, None, "no reference"),
    (TRUST, Status.EXACT, 0.0, None, "k̂ 0.00"),
]


@pytest.mark.parametrize(("grade", "status", "khat", "found", "reason"), RULES)
def test_rule(grade, status, khat, found, reason):
    verdict = reach_verdict(
        status, khat=None if khat is None else Estimate(khat, 0.1), accuracy=found
    )
    assert verdict.grade is grade
    assert re.search(reason, verdict.reason)
    assert bool(verdict.advice) is (grade is not TRUST)


WEIGHTS = [
    (TRUST, 0.3, accuracy(0.17, 0.81), "reweighting moves means by at most 0.17 sd"),
    (CARE, 0.3, accuracy(0.18), "the mean of rho[4,2] is 0.18 sd from where its weights put it"),
    (
        CARE,
        0.3,
        accuracy(ratio=0.79),
        "the sd of mu[0] is too narrow: 0.79 of what its weights say",
    ),
    (CARE, 0.3, accuracy(ratio=1.21), "too wide"),
    (TRUST, 0.7, accuracy(0.08, 0.91), "k̂ 0.70 of at most 0.70"),
    (CARE, 0.7, accuracy(0.09), "0.09 sd"),
    (CARE, 0.7, accuracy(ratio=0.89), "too narrow: 0.89"),
    (TRUST, 0.6, accuracy(0.13, 0.86), "k̂ 0.60"),
    (CARE, 0.6, accuracy(0.14), "0.14 sd"),
    (REJECT, 0.3, accuracy(1.5, error_se=0.1), "1.50 sd"),
    (REJECT, 0.3, accuracy(ratio=0.2), "too narrow"),
    (CARE, 0.8, accuracy(), "k̂ 0.80 is above its threshold 0.70, on account of tau, give or take"),
    (REJECT, 0.95, accuracy(), "k̂ 0.95 is above its threshold 0.70, on account of tau"),
    (CARE, 0.8, accuracy(0.5), "k̂ 0.80"),
    (REJECT, 0.8, accuracy(1.5, error_se=0.1), "1.50 sd"),  # heavy weights see that much
    (REJECT, 0.8, accuracy(ratio=0.2), "too narrow"),
]


@pytest.mark.parametrize(("grade", "khat", "correction", "reason"), WEIGHTS)
def test_rule_without_a_reference(grade, khat, correction, reason):
    verdict = reach_verdict(
        Status.CONVERGED, khat=Estimate(khat, 0.1), correction=correction, culprit="tau"
    )
    assert verdict.grade is grade
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("khat", "correction", "said"),
    [
        (Estimate(0.6, 0.1), accuracy(), "k̂ 0.60 ± 0.10 of at most 0.70"),
        (Estimate(0.8, 0.1), None, "k̂ 0.80"),
        (Estimate(0.3, 0.1), accuracy(0.16, error_se=0.02), "the mean of rho[4,2] is 0.16"),
        (Estimate(0.3, 0.1), accuracy(ratio=0.83, ratio_se=0.02), "the sd of mu[0] is 0.83"),
        (Estimate(0.3, 0.1), accuracy(ratio=1.17, ratio_se=0.02), "the sd of mu[0] is 1.17"),
        (Estimate(0.3, 0.1), accuracy(0.1, 0.95, 0.02, 0.02), ""),
        (Estimate(0.6, 0.01), accuracy(0.12, error_se=0.01), "of at most 0.13"),
        (Estimate(0.5, 0.01), accuracy(0.17, error_se=0.01), "of at most 0.17"),
        (Estimate(math.inf, math.inf), None, ""),
    ],
)
def test_figures_near_their_limits_are_undecided(khat, correction, said):
    found = undecided(khat, 0.7, None, correction)
    assert (said in found) if said else (found == "")


def test_with_a_reference_its_figures_are_looked_at_and_not_the_weights():
    assert undecided(Estimate(0.7, 0.1), 0.7, accuracy(0.1, 1.1), None) == ""
    assert "rho" in undecided(Estimate(0.1, 0.1), 0.7, accuracy(0.19, 1.1, 0.01), accuracy())


def test_a_reference_outranks_the_weights():
    verdict = reach_verdict(
        Status.CONVERGED, khat=Estimate(0.3, 0.1), correction=accuracy(0.5), accuracy=accuracy()
    )
    assert verdict.grade is TRUST


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (accuracy(0.27, 0.57), "the sd of mu[0] is too narrow: 0.57"),
        (accuracy(0.60, 0.70), "the mean of rho[4,2] is 0.60 sd"),
        (accuracy(0.27, 1.90), "the sd of mu[0] is too wide: 1.90"),
        (accuracy(0.90, 0.25), "the sd of mu[0] is too narrow: 0.25"),  # the only one to reject
        (accuracy(4.00, 0.25), "the mean of rho[4,2] is 4.00 sd"),
        (accuracy(1.10, 0.05), "the sd of mu[0] is too narrow: 0.05"),
        (accuracy(0.90, 0.57, error_se=0.4), "the sd of mu[0]"),  # the mean may be fine
    ],
)
def test_the_figure_furthest_beyond_its_limit_is_named(found, named):
    verdict = reach_verdict(Status.CONVERGED, khat=Estimate(0.3, 0.1), accuracy=found)
    assert verdict.reason.startswith(named)


@pytest.mark.parametrize(
    ("khat", "found", "named"),
    [
        (Estimate(2.99, 0.2), accuracy(ratio=0.2), "k̂ 2.99"),  # 3.7 of its limit, the sd 1.5
        (Estimate(2.99, 0.2), accuracy(1.50), "k̂ 2.99"),
        (Estimate(0.95, 0.05), accuracy(ratio=0.2), "the sd of mu[0] is too narrow: 0.20"),
        (Estimate(2.99, 0.2), accuracy(9.00), "the mean of rho[4,2] is 9.00 sd"),
        (Estimate(math.inf, math.inf), accuracy(9.00), "the mean of rho[4,2] is 9.00 sd"),
        (Estimate(2.99, 1.2), accuracy(ratio=0.2), "the sd of mu[0]"),  # k̂ may be fine
    ],
)
def test_khat_is_named_where_it_is_furthest_beyond_its_limit(khat, found, named):
    verdict = reach_verdict(Status.CONVERGED, khat=khat, correction=found)
    assert verdict.grade is REJECT
    assert verdict.reason.startswith(named)


def test_evidence_that_is_missing():
    def verdict(nats, error=0.0):
        return reach_verdict(
            Status.CONVERGED, khat=Estimate(0.2, 0.1), missing=Estimate(nats, error)
        )

    assert verdict(0.05).grade is TRUST
    found = verdict(math.log(2))
    assert found.grade is REJECT
    assert "0.5 of the evidence" in found.reason
    assert verdict(math.log(2), 0.4).grade is TRUST


def test_undefined_density_is_rejected():
    for value in (math.nan, -math.inf):
        verdict = reach_verdict(Status.CONVERGED, bound=Estimate(value, math.nan))
        assert verdict.grade is REJECT
        assert "density" in verdict.reason


@pytest.mark.parametrize(
    ("count", "grade", "said"),
    [(0, TRUST, "R-hat"), (1, CARE, "1 transition"), (9, CARE, "9 trans")],
)
def test_divergences_are_named_and_weigh(count, grade, said):
    verdict = reach_verdict(Status.SAMPLED, detail="R-hat 1.00, ESS 900", divergences=count)
    assert verdict.grade is grade
    assert verdict.reason.startswith(said)
    worse = reach_verdict(Status.SAMPLED, accuracy=accuracy(2.0), divergences=count)
    assert "mean of" in worse.reason


def test_samplers_are_praised_in_their_own_words():
    verdict = reach_verdict(Status.SAMPLED, detail="R-hat 1.00, ESS 3100")
    assert verdict.reason == "R-hat 1.00, ESS 3100, no reference to check against"


def test_grades_are_ordered():
    assert [g.rank for g in (TRUST, CARE, REJECT)] == [0, 1, 2]
