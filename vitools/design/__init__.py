"""Which measurement to make: expected information of designs, the next one, a run of them."""

from vitools.design.active_learning import (
    bald,
    committee_disagreement,
    next_label,
    predictive_entropy,
)
from vitools.design.expected import expected_information_gain
from vitools.design.gains import InformationGains
from vitools.design.gaussian import gaussian_gains, measured
from vitools.design.next_measurement import Choice, next_measurement
from vitools.design.run_design import DesignRun, run_design

__all__ = [
    "Choice",
    "DesignRun",
    "InformationGains",
    "bald",
    "committee_disagreement",
    "expected_information_gain",
    "gaussian_gains",
    "measured",
    "next_label",
    "next_measurement",
    "predictive_entropy",
    "run_design",
]
