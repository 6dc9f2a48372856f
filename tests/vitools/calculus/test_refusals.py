"""What is not conjugate is refused, by name, with the operation and what to use instead."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools.calculus import ConjugateModel
from vitools.errors import NotConjugateError, VitoolsError

Y = torch.tensor([0.5, 1.5, -0.3])
sample = pyro.sample


def half_cauchy():
    scale = sample("scale", dist.HalfCauchy(1.0))
    sample("y", dist.Normal(0.0, scale).expand([3]).to_event(1), obs=Y)


def logistic():
    w = sample("w", dist.Normal(0.0, 1.0))
    sample("y", dist.Bernoulli(logits=w), obs=torch.tensor(1.0))


def sigmoid():
    w = sample("w", dist.Normal(0.0, 1.0))
    sample("y", dist.Bernoulli(torch.sigmoid(w)), obs=torch.tensor(1.0))


def exponent():
    w = sample("w", dist.Normal(0.0, 1.0))
    sample("y", dist.Poisson(w.exp()), obs=torch.tensor(2.0))


def normal_scale():
    s = sample("s", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(0.0, s), obs=torch.tensor(2.0))


def sum_of_precisions():
    a, b = sample("a", dist.Gamma(1.0, 1.0)), sample("b", dist.Gamma(1.0, 1.0))
    sample("y", dist.Normal(0.0, (a + b).rsqrt()), obs=torch.tensor(2.0))


def third_power():
    w = sample("w", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(w**2, 1.0), obs=torch.tensor(2.0))


def gamma_as_location():
    g = sample("g", dist.Gamma(1.0, 1.0))
    sample("y", dist.Normal(g, 1.0), obs=torch.tensor(2.0))


def random_concentration():
    a = sample("a", dist.Gamma(1.0, 1.0))
    g = sample("g", dist.Gamma(a, 1.0))
    sample("y", dist.Poisson(g), obs=torch.tensor(2.0))


def scaled_simplex():
    p = sample("p", dist.Dirichlet(torch.ones(3)))
    sample("y", dist.Categorical(p * torch.tensor([0.5, 1.0, 2.0])), obs=torch.tensor(1))


def gamma_simplex():
    g = sample("g", dist.Gamma(torch.ones(3), 1.0).to_event(1))
    sample("y", dist.Categorical(g), obs=torch.tensor(1))


def branches():
    w = sample("w", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(w if w > 0 else -w, 1.0), obs=torch.tensor(2.0))


def in_place():
    w = sample("w", dist.Normal(0.0, 1.0))
    loc = torch.zeros(3)
    loc[1] = w
    sample("y", dist.Normal(loc, 1.0).to_event(1), obs=Y)


def covariance_wishart():
    s = sample("s", dist.Wishart(torch.tensor(4.0), covariance_matrix=torch.eye(3)))
    sample("y", dist.MultivariateNormal(torch.zeros(3), covariance_matrix=s), obs=Y)


def student():
    t = sample("t", dist.Gamma(1.0, 1.0))
    sample("y", dist.StudentT(3.0, 0.0, t.rsqrt()).expand([3]).to_event(1), obs=Y)


def abs_value():
    w = sample("w", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal((w * w).sqrt(), 1.0), obs=torch.tensor(2.0))


def mixture_density():
    w = sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(w, 1.0))
    sample("y", mixture, obs=torch.tensor(1.0))


def transformed_density():
    w = sample("w", dist.Normal(0.0, 1.0))
    exponential = dist.transforms.ExpTransform()
    y = dist.TransformedDistribution(dist.Normal(w, 1.0), exponential)
    sample("y", y, obs=torch.tensor(1.0))


def log_density_by_hand():
    w = sample("w", dist.Normal(0.0, 1.0))
    pyro.factor("y", w.cos())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (mixture_density, ["'y'", "MixtureSameFamily", "Categorical latent"]),
        (transformed_density, ["'y'", "TransformedDistribution"]),
        (log_density_by_hand, ["'y'", "'w'", "'log_factor'", "cos"]),
        (half_cauchy, ["'scale'", "HalfCauchy", "Gamma prior on the precision", "nuts()"]),
        (logistic, ["'y'", "'w'", "logits"]),
        (sigmoid, ["'y'", "'w'", "sigmoid"]),
        (exponent, ["'y'", "'w'", "exp"]),
        (normal_scale, ["'y'", "'s'", "s^-2"]),
        (sum_of_precisions, ["'y'", "'a', 'b'", "power -0.5 of a sum"]),
        (third_power, ["'y'", "'w'", "w^4"]),
        (gamma_as_location, ["'y'", "'g'", "g^2"]),
        (random_concentration, ["'g'", "concentration that depends on a latent"]),
        (scaled_simplex, ["'y'", "'p'", "sum to one"]),
        (gamma_simplex, ["'y'", "'g'", "sum to one"]),
        (branches, ["'w'", "reads the value"]),
        (in_place, ["in-place", "'w'", "torch.stack"]),
        (covariance_wishart, ["'y'", "'s'", "inverse of a random matrix"]),
        (student, ["'y'", "StudentT", "Gamma prior"]),
        (abs_value, ["'y'", "'w'"]),
    ],
)
def test_refusal(model, words):
    with pytest.raises(NotConjugateError) as raised:
        ConjugateModel(model)
    message = str(raised.value)
    for word in words:
        assert word in message, message
    assert isinstance(raised.value, VitoolsError)


def test_a_refused_quantity_that_is_only_recorded_does_no_harm():
    def model():
        w = sample("w", dist.Normal(0.0, 1.0))
        pyro.deterministic("odds", w.exp())
        sample("y", dist.Normal(w, 1.0), obs=torch.tensor(2.0))

    assert ConjugateModel(model).latents.keys() == {"w"}
