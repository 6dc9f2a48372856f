"""What has no coordinate update is refused, by name, with the operation and what to use instead."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools.calculus import ConjugateModel
from vitools.errors import NotConjugateError, VitoolsError

Y = torch.tensor([0.5, 1.5, -0.3])
sample = pyro.sample


def normal_scale():
    s = sample("s", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(0.0, s), obs=torch.tensor(2.0))


def sum_of_precisions():
    a, b = sample("a", dist.Gamma(1.0, 1.0)), sample("b", dist.Gamma(1.0, 1.0))
    sample("y", dist.Normal(0.0, (a + b).rsqrt()), obs=torch.tensor(2.0))


def scaled_simplex():
    p = sample("p", dist.Dirichlet(torch.ones(3)))
    sample("y", dist.Categorical(p * torch.tensor([0.5, 1.0, 2.0])), obs=torch.tensor(1))


def gamma_simplex():
    g = sample("g", dist.Gamma(torch.ones(3), 1.0).to_event(1))
    sample("y", dist.Categorical(g), obs=torch.tensor(1))


def half_normal_of_one_predictor():
    a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 3):
        sample("y", dist.HalfNormal((a + b).exp() - 1), obs=Y.abs())


def softmax_normaliser_that_raises():
    w = sample("w", dist.Normal(torch.zeros(2), 1.5).to_event(1))
    pyro.factor("y", w.logsumexp(-1))


def identity_link():
    a = sample("a", dist.Normal(3.0, 1.0))
    with pyro.plate("rows", 3):
        sample("y", dist.Poisson(a + Y.abs()), obs=Y.abs().round())


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


def mixture_density():
    w = sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(w, 1.0))
    with pyro.poutine.scale(scale=0.5):  # no density: no latent of it could be summed out
        sample("y", mixture, obs=torch.tensor(1.0))


def transformed_density():
    w = sample("w", dist.Normal(0.0, 1.0))
    exponential = dist.transforms.ExpTransform()
    y = dist.TransformedDistribution(dist.Normal(w, 1.0), exponential)
    sample("y", y, obs=torch.tensor(1.0))


def scale_of_a_scale():
    wide = sample("wide", dist.HalfCauchy(1.0))
    scale = sample("scale", dist.HalfCauchy(wide))
    sample("y", dist.Normal(0.0, scale).expand([3]).to_event(1), obs=Y)


def two_shapes():
    a, b = sample("a", dist.Gamma(1.0, 1.0)), sample("b", dist.Gamma(1.0, 1.0))
    sample("y", dist.Beta(a, b), obs=torch.tensor(0.4))


def product_in_a_link():
    a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
    sample("y", dist.Bernoulli(logits=a * b), obs=torch.tensor(1.0))


def link_times_its_latent():
    a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(a * (a + b).exp(), 1.0), obs=torch.tensor(1.0))


def random_bound():
    top = sample("top", dist.Gamma(1.0, 1.0))
    sample("y", dist.Uniform(0.0, top), obs=torch.tensor(0.5))


def hidden_layer():
    w = sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    sample("y", dist.Normal((w.sum() + w.sum().tanh()).tanh(), 1.0), obs=torch.tensor(1.0))


def angle():
    v = sample("v", dist.VonMises(0.0, 1.0))
    sample("y", dist.Normal(v, 1.0), obs=torch.tensor(0.3))


def masked_scale():
    with pyro.plate("n", 3), pyro.poutine.mask(mask=Y > 0):
        scale = sample("scale", dist.HalfNormal(1.0))
        sample("y", dist.Normal(0.0, scale), obs=Y)


def log_density_by_hand():
    a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
    pyro.factor("y", (a * b).cos())


def recursion_that_multiplies():
    a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
    x = torch.tensor(1.0)
    for t in range(20):  # written out, x would have 2^(2^20) terms
        x = a * x * x + b * x
        sample(f"y{t}", dist.Normal(x, 1.0), obs=Y[0])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (recursion_that_multiplies, ["'y4'", "'a', 'b'", "terms if written out"]),
        (mixture_density, ["'y'", "MixtureSameFamily", "'w'", "no closed-form rule with"]),
        (log_density_by_hand, ["'y'", "'a', 'b'", "'log_factor'", "cos"]),
        (scale_of_a_scale, ["'scale', 'wide' separate", "HalfCauchy", "Gamma prior"]),
        (two_shapes, ["'y'", "'a', 'b' together, and 'a' is not Gaussian"]),
        (product_in_a_link, ["'y'", "'a', 'b'", "softplus of what is not linear"]),
        (link_times_its_latent, ["'y'", "'a', 'b' times another function of the same"]),
        (random_bound, ["'y'", "'top'", "upper bound that depends on a latent"]),
        (hidden_layer, ["'y'", "'w'", "tanh of what is not linear"]),
        (angle, ["'v'", "VonMises"]),
        (masked_scale, ["'scale'", "an integral, which has no masks"]),
        (transformed_density, ["'y'", "TransformedDistribution"]),
        (normal_scale, ["'y'", "'s'", "log s, which is no number at s = -2"]),
        (sum_of_precisions, ["'y'", "'a', 'b'", "'a', 'b' together, and 'a' is not Gaussian"]),
        (scaled_simplex, ["'y'", "'p'", "sum to one"]),
        (gamma_simplex, ["'y'", "'g'", "sum to one"]),
        (
            half_normal_of_one_predictor,
            ["'y'", "'a + b'", "HalfNormal(y | a + b), which is no number at -2"],
        ),
        (softmax_normaliser_that_raises, ["'y'", "'w'", "no lower bound"]),
        (identity_link, ["'y'", "'a'", "which is no number at a = -2"]),
        (branches, ["'w'", "reads the value"]),
        (in_place, ["in-place", "'w'", "torch.stack"]),
        (covariance_wishart, ["'y'", "'s'", "inverse of a random matrix"]),
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
