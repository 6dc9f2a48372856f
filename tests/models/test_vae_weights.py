"""Terms of log p(x, z) - log q(z | x), read off models stated by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.vae import DeepModel, log_weights
from vitools.models.vae.networks.likelihoods import BernoulliDecoder

IMAGES = torch.tensor([[0.4], [-1.1], [2.0]], dtype=torch.float64)


def two_layers(images, batch_size=None):
    """z2 ~ N(0, 1), z1 | z2 ~ N(z2, 1), x | z1 ~ N(z1, 0.5²)."""
    with pyro.plate("images", len(images), batch_size, dim=-1):
        batch = pyro.subsample(images, event_dim=1)
        z2 = pyro.sample("z2", dist.Normal(images.new_zeros(1), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z1, 0.5).to_event(1), obs=batch)


def bottom_up(images, batch_size=None):
    with pyro.plate("images", len(images), batch_size, dim=-1):
        batch = pyro.subsample(images, event_dim=1)
        z1 = pyro.sample("z1", dist.Normal(0.8 * batch, 0.6).to_event(1))
        pyro.sample("z2", dist.Normal(0.5 * z1, 0.7).to_event(1))


def top_down(images, batch_size=None):
    with pyro.plate("images", len(images), batch_size, dim=-1):
        batch = pyro.subsample(images, event_dim=1)
        z2 = pyro.sample("z2", dist.Normal(0.4 * batch, 0.7).to_event(1))
        pyro.sample("z1", dist.Normal(0.5 * (batch + z2), 0.6).to_event(1))


def normal_kl(mean, sd, other_mean, other_sd):
    ratio = sd / other_sd
    shift = (mean - other_mean) / other_sd
    return 0.5 * (ratio**2 + shift**2 - 1) - math.log(ratio)


def run(guide, model=two_layers, num_samples=4000):
    with seeded(0):
        return log_weights(model, guide, IMAGES, num_samples=num_samples)


@pytest.mark.parametrize("guide", [bottom_up, top_down])
def test_weights_average_to_the_evidence(guide):
    weights = run(guide, num_samples=20_000)
    exact = dist.Normal(0.0, math.sqrt(2.25)).log_prob(IMAGES).squeeze(-1)  # 1 + 1 + 0.5²
    ratio = (weights.total - exact).exp()
    error = ratio.std(0) / math.sqrt(20_000)
    assert (error < 0.05).all()
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()


def test_only_layers_whose_prior_is_drawn_before_them_have_a_closed_form():
    up = run(bottom_up)
    assert torch.equal(up.kls["z1"], -up.log_ratios["z1"])  # its prior's mean comes after it
    exact = normal_kl(0.4 * IMAGES[:, 0], math.sqrt(0.3**2 + 0.7**2), 0.0, 1.0)
    within = math.log(math.sqrt(0.3**2 + 0.7**2) / 0.7)  # E KL(q(z2 | z1)) is above KL of the mean
    error = up.kls["z2"].std(0) / math.sqrt(4000)
    assert ((up.kls["z2"].mean(0) - exact - within).abs() < 4 * error).all()
    assert (up.kls["z2"].std(0) < up.log_ratios["z2"].std(0)).all()

    down = run(top_down)
    exact = normal_kl(0.4 * IMAGES[:, 0], 0.7, 0.0, 1.0)
    torch.testing.assert_close(down.kls["z2"], exact.expand(4000, 3))
    # E_q KL(N((x + z2) / 2, .6²) ‖ N(z2, 1)) with (x - z2) / 2 ~ N(.3 x, .35²)
    square = (0.3 * IMAGES[:, 0]) ** 2 + 0.35**2
    exact = 0.5 * (0.36 + square - 1) - math.log(0.6)
    error = down.kls["z1"].std(0) / math.sqrt(4000)
    assert ((down.kls["z1"].mean(0) - exact).abs() < 4 * error).all()


def test_the_layers_sum_to_the_bound():
    for guide in (bottom_up, top_down):
        weights = run(guide)
        by_kls, by_ratios = weights.elbo, weights.total
        torch.testing.assert_close(
            by_ratios, weights.log_likelihood + weights.log_ratios["z1"] + weights.log_ratios["z2"]
        )
        difference = by_kls - by_ratios
        error = difference.std(0) / math.sqrt(len(difference))
        assert (difference.mean(0).abs() < 4 * error).all()


def test_scales_are_left_out():
    expected = run(top_down, num_samples=5)
    scaled = run(poutine.scale(top_down, 3.0), poutine.scale(two_layers, 3.0), num_samples=5)
    torch.testing.assert_close(scaled.total, expected.total)
    torch.testing.assert_close(scaled.kls["z1"], expected.kls["z1"])


class OneUnit(DeepModel):
    """The recipe of the base class, on rows that are no images."""

    rows = "documents"

    def __init__(self):
        super().__init__(num_pixels=3)
        generator = torch.Generator().manual_seed(0)
        self.decoder = BernoulliDecoder(3, 1, (), generator)

    def model(self, documents, batch_size=None):
        decoder = self._network("decoder")
        with self._plate(documents, batch_size):
            batch = self._batch(documents)
            z = pyro.sample("z", dist.Normal(documents.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", decoder(z), obs=batch)

    def guide(self, documents, batch_size=None):
        with self._plate(documents, batch_size):
            pyro.sample("z", dist.Normal(documents.new_zeros(1), 1.0).to_event(1))


def test_a_model_by_the_recipe_has_plate_checks_and_weights():
    model = OneUnit()
    documents = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    with seeded(0), pyro.get_param_store().scope() as store:
        trace = poutine.trace(model.model).get_trace(documents)
    assert set(store["params"]) == {"decoder.network.0.weight", "decoder.network.0.bias"}
    assert trace.nodes["documents"]["value"].tolist() == [0, 1]
    with seeded(0):
        weights = model.log_weights(documents, num_samples=6)
    assert weights.total.shape == (6, 2)
    assert weights.kls["z"].abs().max() < 1e-7  # q is the prior
    torch.testing.assert_close(weights.elbo, weights.log_likelihood)
    assert len(pyro.get_param_store()) == 0
    with pytest.raises(DataError, match=r"documents: expected a float tensor \[num_documents, 3\]"):
        model.check(documents[:, :2])
    with pytest.raises(
        DataError, match=r"documents: BernoulliDecoder needs pixels 0 or 1, got 0\.5"
    ):
        model.check(documents * 0.5)
    with pytest.raises(OptionError, match="1 to 2, the number of documents; got 3"):
        model.guide(documents, 3)
