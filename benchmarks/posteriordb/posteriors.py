"""The thirteen posteriors: posteriordb's names, Pyro models, data."""

import linear_regressions as regression
import other_models as other
import time_series
from reference import Posterior

POSTERIORS = {
    posterior.name: posterior
    for posterior in (
        Posterior("arK-arK", time_series.autoregression, time_series.series_and_order),
        Posterior("arma-arma11", time_series.arma, time_series.series),
        Posterior("earnings-logearn_interaction_z", regression.flat_priors, regression.earnings),
        Posterior(
            "eight_schools-eight_schools_noncentered",
            other.eight_schools,
            lambda data: (data["y"], data["sigma"]),
            other.standardised,
        ),
        Posterior(
            "gp_pois_regr-gp_regr", other.gaussian_process, lambda data: (data["x"], data["y"])
        ),
        Posterior("hmm_example-hmm_example", time_series.hidden_markov, time_series.series),
        Posterior(
            "kidiq-kidscore_interaction", regression.half_cauchy_scale, regression.kids_interaction
        ),
        Posterior("kidiq-kidscore_momhsiq", regression.half_cauchy_scale, regression.kids),
        Posterior("kilpisjarvi_mod-kilpisjarvi", other.line, other.years),
        Posterior("low_dim_gauss_mix-low_dim_gauss_mix", other.mixture, time_series.series),
        Posterior("mesquite-mesquite", regression.flat_priors, regression.mesquite),
        Posterior("nes2000-nes", regression.flat_priors, regression.election),
        Posterior("sblrc-blr", regression.proper_priors, regression.given_design),
    )
}
