"""One judge for every fit, whichever engine made it: evidence, k̂, moments, verdict."""

from vitools.diagnostics.accuracy import Accuracy, measure_accuracy
from vitools.diagnostics.evidence import bound, elbo, importance_weighted_bound
from vitools.diagnostics.judgement import Judgement, judge
from vitools.diagnostics.khat import khat_estimate, khat_threshold, pareto_khat
from vitools.diagnostics.moments import Moments, moments
from vitools.diagnostics.verdict import Grade, Verdict, reach_verdict

__all__ = [
    "Accuracy",
    "Grade",
    "Judgement",
    "Moments",
    "Verdict",
    "bound",
    "elbo",
    "importance_weighted_bound",
    "judge",
    "khat_estimate",
    "khat_threshold",
    "measure_accuracy",
    "moments",
    "pareto_khat",
    "reach_verdict",
]
