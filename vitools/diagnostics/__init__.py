"""One judge for every fit, whichever engine made it: evidence, k̂, moments, verdict."""

from vitools.diagnostics.calibration.calibration import Calibration, calibrate
from vitools.diagnostics.calibration.simulation import with_data
from vitools.diagnostics.convergence import restarts, split_rhat, trend
from vitools.diagnostics.evidence.evidence_bounds import Evidence, evidence
from vitools.diagnostics.evidence.union import FitUnion, measure_union
from vitools.diagnostics.evidence.wasserstein_bounds import ErrorBounds, error_bounds
from vitools.diagnostics.modes.missed import Scan
from vitools.diagnostics.modes.scan import Mode, find_modes
from vitools.diagnostics.predictive.loo import PredictiveScore, elpd_difference, loo, waic
from vitools.diagnostics.predictive.predictive_checks import PredictiveCheck, predictive_checks
from vitools.diagnostics.reference.accuracy import Accuracy, measure_accuracy
from vitools.diagnostics.reference.distance import Distance, measure_distance
from vitools.diagnostics.reference.moments import Moments, moments
from vitools.diagnostics.reference.reference import reference_draws, reference_moments
from vitools.diagnostics.verdict.grade import Grade, Verdict
from vitools.diagnostics.verdict.judgement import Judgement, judge
from vitools.diagnostics.verdict.verdict import reach_verdict
from vitools.diagnostics.weights.bounds import bound, importance_weighted_bound, marginal_bound
from vitools.diagnostics.weights.correction import measure_correction, psis_moments
from vitools.diagnostics.weights.khat import khat_estimate, khat_threshold, pareto_khat
from vitools.diagnostics.weights.psis import SmoothedWeights, smooth
from vitools.diagnostics.weights.sampled_rows import on_sampled_rows
from vitools.diagnostics.weights.site_khat import SiteKhat, site_khats

__all__ = [
    "Accuracy",
    "Calibration",
    "Distance",
    "ErrorBounds",
    "Evidence",
    "FitUnion",
    "Grade",
    "Judgement",
    "Mode",
    "Moments",
    "PredictiveCheck",
    "PredictiveScore",
    "Scan",
    "SiteKhat",
    "SmoothedWeights",
    "Verdict",
    "bound",
    "calibrate",
    "elpd_difference",
    "error_bounds",
    "evidence",
    "find_modes",
    "importance_weighted_bound",
    "judge",
    "khat_estimate",
    "khat_threshold",
    "loo",
    "marginal_bound",
    "measure_accuracy",
    "measure_correction",
    "measure_distance",
    "measure_union",
    "moments",
    "on_sampled_rows",
    "pareto_khat",
    "predictive_checks",
    "psis_moments",
    "reach_verdict",
    "reference_draws",
    "reference_moments",
    "restarts",
    "site_khats",
    "smooth",
    "split_rhat",
    "trend",
    "waic",
    "with_data",
]
