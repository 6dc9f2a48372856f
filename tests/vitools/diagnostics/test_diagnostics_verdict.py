"""The verdict's rules, one row each."""

import math
import re

import pytest

from vitools.diagnostics import Accuracy, Grade, reach_verdict
from vitools.posterior import Estimate, Status


def accuracy(error=0.0, ratio=1.0, error_se=0.0, ratio_se=0.0) -> Accuracy:
    return Accuracy(
        Estimate(error, error_se), "rho[4,2]", Estimate(ratio, ratio_se), "mu[0]", {}, {}
    )


TRUST, CARE, REJECT = Grade

RULES = [
    (TRUST, Status.CONVERGED, 0.3, None, "no reference"),
    (TRUST, Status.CONVERGED, 0.3, accuracy(0.2, 0.9), "within 0.20 sd"),
    (CARE, Status.CONVERGED, 0.55, None, "between 0.5 and its threshold 0.70"),
    (REJECT, Status.CONVERGED, 0.71, None, "above its threshold"),
    (REJECT, Status.CONVERGED, math.inf, None, "above its threshold"),
    (CARE, Status.CONVERGED, 0.9, accuracy(0.1, 1.1), "agree with the reference"),
    (CARE, Status.CONVERGED, 0.3, accuracy(0.5), r"mean of rho\[4,2\] is 0.50 sd"),
    (REJECT, Status.CONVERGED, 0.3, accuracy(1.5), r"mean of rho\[4,2\] is 1.50 sd"),
    (TRUST, Status.CONVERGED, 0.3, accuracy(1.5, error_se=0.7), "within"),
    (CARE, Status.CONVERGED, 0.3, accuracy(ratio=0.5), r"mu\[0\] is too narrow"),
    (CARE, Status.CONVERGED, 0.3, accuracy(ratio=2.0), "too wide"),
    (REJECT, Status.CONVERGED, 0.3, accuracy(ratio=0.2), "too narrow: 0.20"),
    (REJECT, Status.CONVERGED, 0.3, accuracy(ratio=0.0), "too narrow"),
    (REJECT, Status.CONVERGED, 0.9, accuracy(2.0), "mean of"),
    (TRUST, Status.CONVERGED, 0.3, accuracy(ratio=2.0, ratio_se=0.8), "within"),
    (CARE, Status.STOPPED_AT_LIMIT, 0.3, None, "stopped at limit"),
    (CARE, Status.INTERRUPTED, 0.3, None, "interrupted"),
    (REJECT, Status.STOPPED_AT_LIMIT, 0.9, None, "above"),
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


def test_undefined_density_is_rejected():
    for value in (math.nan, -math.inf):
        verdict = reach_verdict(Status.CONVERGED, bound=Estimate(value, math.nan))
        assert verdict.grade is REJECT
        assert "density" in verdict.reason


def test_samplers_are_praised_in_their_own_words():
    verdict = reach_verdict(Status.SAMPLED, detail="R-hat 1.00, ESS 3100")
    assert verdict.reason == "R-hat 1.00, ESS 3100, no reference to check against"


def test_grades_are_ordered():
    assert [g.rank for g in (TRUST, CARE, REJECT)] == [0, 1, 2]
