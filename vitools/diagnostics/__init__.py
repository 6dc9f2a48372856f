"""One judge for every fit, whichever engine made it: evidence, k̂, moments, verdict."""

from vitools.diagnostics.accuracy import Accuracy, measure_accuracy
from vitools.diagnostics.calibration import Calibration, calibrate
from vitools.diagnostics.convergence import restarts, split_rhat, trend
from vitools.diagnostics.correction import measure_correction, psis_moments
from vitools.diagnostics.distance import Distance, measure_distance
from vitools.diagnostics.evidence import bound, elbo, importance_weighted_bound
from vitools.diagnostics.evidence_bounds import Evidence, evidence
from vitools.diagnostics.judgement import Judgement, judge
from vitools.diagnostics.khat import khat_estimate, khat_threshold, pareto_khat
from vitools.diagnostics.loo import PredictiveScore, elpd_difference, loo, waic
from vitools.diagnostics.moments import Moments, moments
from vitools.diagnostics.predictive_checks import PredictiveCheck, predictive_checks
from vitools.diagnostics.psis import SmoothedWeights, smooth
from vitools.diagnostics.reference import reference_draws, reference_moments
from vitools.diagnostics.simulation import with_data
from vitools.diagnostics.site_khat import SiteKhat, site_khats
from vitools.diagnostics.verdict import Grade, Verdict, reach_verdict
from vitools.diagnostics.wasserstein_bounds import ErrorBounds, error_bounds

__all__ = [
    "Accuracy",
    "Calibration",
    "Distance",
    "ErrorBounds",
    "Evidence",
    "Grade",
    "Judgement",
    "Moments",
    "PredictiveCheck",
    "PredictiveScore",
    "SiteKhat",
    "SmoothedWeights",
    "Verdict",
    "bound",
    "calibrate",
    "elbo",
    "elpd_difference",
    "error_bounds",
    "evidence",
    "importance_weighted_bound",
    "judge",
    "khat_estimate",
    "khat_threshold",
    "loo",
    "measure_accuracy",
    "measure_correction",
    "measure_distance",
    "moments",
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
