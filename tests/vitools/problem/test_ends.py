"""Where transformed distributions draw: torch looks at the last transform, the truth is the image of all."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import tensor
from torch.distributions import transforms

from vitools import Problem, cavi, exact, explain
from vitools.errors import ModelError, NotConjugateError

BASE = dist.Normal(tensor(0.0).double(), tensor(1.0).double())
ABOVE = [transforms.ExpTransform(), transforms.AffineTransform(0.5, 2.0)]


def shifted(y):
    x = pyro.sample("x", dist.TransformedDistribution(BASE, ABOVE))
    pyro.sample("y", dist.Normal(x, 1.0), obs=y)


@pytest.mark.parametrize(
    ("parts", "least", "most"),
    [
        (ABOVE, 0.5, math.inf),
        ([transforms.ExpTransform(), transforms.AffineTransform(1.0, -1.0)], -math.inf, 1.0),
        ([transforms.SigmoidTransform(), transforms.AffineTransform(-1.0, 2.0)], -1.0, 1.0),
        ([transforms.AffineTransform(3.0, 2.0)], -math.inf, math.inf),
    ],
)
def test_the_support_of_a_latent_is_the_image_of_its_transforms(parts, least, most):
    def model(y):
        x = pyro.sample("x", dist.TransformedDistribution(BASE, parts))
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    problem = Problem(model, tensor(1.0).double())
    values = problem.constrain({"x": torch.linspace(-30.0, 30.0, 7).double()})["x"]
    assert bool(((values >= least) & (values <= most)).all())
    for end in (least, most):
        assert math.isinf(end) or float((values - end).abs().min()) < 1e-9


def test_the_evidence_of_a_shifted_prior():
    """∫ N(y | ½ + 2 eᵘ, 1) N(u | 0, 1) du by the trapezoid rule, and the exact factor of one latent."""
    y = tensor(2.0).double()
    u = torch.linspace(-9, 9, 4001).double()
    heights = (dist.Normal(0.5 + 2 * u.exp(), 1.0).log_prob(y) + BASE.log_prob(u)).exp()
    evidence = math.log(float(torch.trapezoid(heights, u)))
    problem = Problem(shifted, y)
    assert exact(problem).log_evidence.value == pytest.approx(evidence, abs=1e-6)
    assert cavi(problem).elbo().value == pytest.approx(evidence, abs=1e-6)


def test_a_support_that_moves_with_a_latent_is_refused():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(tensor(0.0).double(), 1.0))
        above = [transforms.ExpTransform(), transforms.AffineTransform(loc, 1.0)]
        x = pyro.sample("x", dist.TransformedDistribution(BASE, above))
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    with pytest.raises(ModelError, match="site 'x': its support depends on other latents"):
        Problem(model, tensor(1.0).double())


def test_transforms_made_of_latents_are_refused_by_cavi_in_words():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(tensor(0.0).double(), 1.0))
        x = pyro.sample(
            "x", dist.TransformedDistribution(BASE, [transforms.AffineTransform(loc, 1.0)])
        )
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    problem = Problem(model, tensor(1.0).double())
    assert "loc" in str(explain(problem))
    with pytest.raises(NotConjugateError, match="'loc'"):
        cavi(problem)
