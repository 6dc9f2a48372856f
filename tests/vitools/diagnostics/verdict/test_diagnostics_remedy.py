"""Advice climbs: from the kind of fit at hand to the next, never to the same."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal

from vitools import Problem, svi
from vitools.diagnostics import smooth
from vitools.diagnostics.reference.accuracy import Accuracy
from vitools.diagnostics.verdict.remedy import suggest
from vitools.guides import AutoFlow, AutoMeanField, AutoMultivariate
from vitools.posterior import Estimate, GaussianPosterior, Status


class OwnMultivariate(AutoMultivariate):
    """A class of the user's own."""


def ridge(total):
    """a + b is all that is seen: a and b are strongly correlated."""
    a = pyro.sample("a", dist.Normal(total.new_tensor(0.0), 1.0))
    b = pyro.sample("b", dist.Normal(total.new_tensor(0.0), 1.0))
    pyro.sample("total", dist.Normal(a + b, 0.1), obs=total)


PROBLEM = Problem(ridge, torch.tensor(0.0).double())
CORRELATED = torch.tensor([[0.5, -0.49], [-0.49, 0.5]]).double()


def advice(fit, missed, correction=None):
    """What is suggested where the weights of the fit's draws say ``missed``: a correlation, or none."""
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vector = normal.sample((2000,))
    if not missed:  # what the fit has, it is not blamed for
        vector = vector @ torch.linalg.cholesky(CORRELATED).T
        log_weights = torch.zeros(2000).double()
    else:
        target = torch.distributions.MultivariateNormal(
            normal.mean, CORRELATED + 0.4 * torch.eye(2)
        )
        log_weights = target.log_prob(vector) - normal.log_prob(vector)
    values = {"a": vector[:, 0], "b": vector[:, 1]}
    return suggest(fit, values, smooth(log_weights), {}, correction)


def gaussian(tril, engine):
    zeros = torch.zeros(2).double()
    return GaussianPosterior(
        PROBLEM,
        location=zeros,
        scale_tril=tril,
        location_error=zeros,
        engine=engine,
        status=Status.CONVERGED,
    )


GUIDES = [
    (AutoMeanField, ["AutoMultivariate", "nuts()"], ["AutoFlow"]),
    (AutoNormal, ["AutoMultivariate", "nuts()"], ["AutoFlow"]),
    (AutoMultivariate, ["AutoFlow", "nuts()"], ["AutoMultivariate"]),
    (OwnMultivariate, ["AutoFlow", "nuts()"], ["AutoMultivariate"]),
    (AutoMultivariateNormal, ["AutoFlow", "nuts()"], ["AutoMultivariate"]),
    pytest.param(
        *(AutoFlow, ["nuts()", "reparameterise"], ["AutoMultivariate", "AutoFlow"]),
        marks=pytest.mark.slow,  # what Pyro's flow shows, too
    ),
    (AutoIAFNormal, ["nuts()", "reparameterise"], ["AutoMultivariate", "AutoFlow"]),
]


@pytest.mark.parametrize("missed", [True, False])
@pytest.mark.parametrize(("guide", "advised", "left_behind"), GUIDES)
def test_a_guide_is_sent_to_the_next_rung(guide, advised, left_behind, missed):
    said = advice(svi(PROBLEM, guide, max_steps=1, compile=False), missed)
    assert all(word in said for word in advised)
    assert not any(word in said for word in left_behind)
    assert ("correlated" in said) == missed


@pytest.mark.parametrize(
    ("scale", "advised"), [(torch.eye(2), "AutoMultivariate"), (None, "AutoFlow")]
)
def test_a_gaussian_is_asked_whether_it_has_correlations(scale, advised):
    tril = torch.linalg.cholesky(CORRELATED) if scale is None else scale.double()
    assert advised in advice(gaussian(tril, "dadvi"), missed=True)


def test_smaller_steps_are_advised_to_what_takes_steps():
    off = Accuracy(Estimate(0.5, 0.01), "a", Estimate(1.0, 0.01), "a", {}, {})
    placed = advice(gaussian(torch.linalg.cholesky(CORRELATED), "laplace"), False, off)
    assert placed.startswith("the mean of a is not where laplace puts it: go on from here by svi(")
    stepped = advice(svi(PROBLEM, AutoMeanField, max_steps=1, compile=False), False, off)
    assert "run longer, or with a smaller step" in stepped
