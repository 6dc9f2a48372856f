"""Every latent space and likelihood of a VAE against quadrature, enumeration and its formula."""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from scipy.special import polygamma, roots_jacobi
from scipy.stats import multinomial

from vitools import Problem, svi
from vitools.engines.objectives import Elbo
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.vae import VAE, load
from vitools.models.vae.networks.latents import LATENTS
from vitools.models.vae.networks.likelihoods import GreyLevels

ON_THE_SIMPLEX = ["logistic_normal", "dirichlet", "stick_kumaraswamy", "mv_kumaraswamy"]


def small(latents, latent_dim, **options):
    """A VAE whose latents matter, in float64."""
    vae = VAE(5, latent_dim, (6,), latents=latents, seed=3, **options).double()
    with torch.no_grad():
        vae.decoder.network[0].weight.mul_(3)
        vae.decoder.network[-1].weight.mul_(3)
        vae.encoder.network[-1].weight.mul_(0.5)
    return vae


def prior_quadrature(latents, concentration):
    """Points z [n, K] and masses [n] whose sums are expectations under the prior, K small."""
    if latents in ("normal", "logistic_normal"):
        nodes, weights = np.polynomial.hermite_e.hermegauss(150)
        if latents == "normal":
            points = nodes[:, None]
        else:  # log z₁ - log z₂ is normal with twice the variance of a log gamma variable
            ratio = nodes * math.sqrt(2 * polygamma(1, concentration))
            points = np.stack([1 / (1 + np.exp(-ratio)), 1 / (1 + np.exp(ratio))], -1)
    else:
        nodes, weights = roots_jacobi(150, concentration - 1, concentration - 1)
        share = (nodes + 1) / 2
        points = share[:, None] if latents == "kumaraswamy" else np.stack([share, 1 - share], -1)
    return torch.from_numpy(points), torch.from_numpy(weights / weights.sum())


@pytest.mark.parametrize(
    ("latents", "concentration"),
    [("normal", 1.0), *itertools.product([k for k in LATENTS if k != "normal"], [1.0, 0.6])],
)
def test_the_importance_bound_is_the_likelihood_by_quadrature(latents, concentration):
    dim = 2 if latents in ON_THE_SIMPLEX else 1
    vae = small(latents, dim, concentration=concentration)
    if latents == "logistic_normal":  # q wider than the prior: weights of bounded variance
        with torch.no_grad():
            vae.encoder.network[-1].bias[dim:] = 0.8
    images, _ = vae.simulate(6, seed=0)
    points, mass = prior_quadrature(latents, concentration)
    log_likelihood = vae.decoder(points[:, None]).log_prob(images)
    exact = (log_likelihood + mass.log()[:, None]).logsumexp(0).detach()
    assert exact.std() > 0.1
    with seeded(1):
        log_w = vae.log_weights(images, num_samples=20_000).total
    bound = log_w.logsumexp(0) - math.log(20_000)
    error = (log_w - bound).exp().std(0) / math.sqrt(20_000)
    assert (error < 0.03).all()
    assert ((bound - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("latents", [name for name in LATENTS if name != "mv_kumaraswamy"])
def test_the_closed_form_kl_is_the_monte_carlo_kl(latents):
    vae = small(latents, 3)
    images, _ = vae.simulate(8, seed=1)
    with seeded(2):
        weights = vae.log_weights(images, num_samples=20_000)
    kl, draws = weights.kls["z"], -weights.log_ratios["z"]
    assert (kl - kl[0]).abs().max() < 1e-12
    error = draws.std(0) / math.sqrt(20_000)
    assert (error < 0.02).all()
    assert kl[0].max() > 0.05
    assert ((draws.mean(0) - kl[0]).abs() <= 4 * error + 1e-9).all()  # a blank image's is 0


def test_the_multivariate_kumaraswamy_has_only_draws():
    vae = small("mv_kumaraswamy", 3)
    images, _ = vae.simulate(4, seed=1)
    with seeded(2):
        weights = vae.log_weights(images, num_samples=50)
    assert torch.equal(weights.kls["z"], -weights.log_ratios["z"])
    torch.testing.assert_close(weights.total, weights.elbo)


@pytest.mark.parametrize("latents", list(LATENTS))
def test_draws_lie_in_the_space_and_surround_their_centre(latents):
    vae = small(latents, 3)
    images, drawn = vae.simulate(50, seed=2)
    support = vae.prior(images).support
    centre = vae.encode(images)
    assert centre.shape == (50, 3)
    assert support.check(centre).all()
    assert support.check(drawn).all()
    with seeded(0):
        draws = vae.encoder(images).sample((2000,))
    assert support.check(draws).all()
    deviation = (draws.mean(0) - centre).abs() / draws.std(0)
    assert deviation.max() < 0.4
    if latents not in ("logistic_normal", "mv_kumaraswamy"):  # there it is the mean
        assert deviation.max() < 5 / math.sqrt(2000)


@pytest.mark.parametrize("latents", list(LATENTS))
def test_the_engine_trains_every_latent_space(latents):
    vae = small(latents, 3)
    generator = torch.Generator().manual_seed(0)
    probability = torch.tensor([0.1, 0.9, 0.5, 0.5, 0.2], dtype=torch.float64)
    images = torch.bernoulli(probability.repeat(40, 1), generator=generator)
    problem = Problem(vae.model, images, batch_size=20)
    with seeded(0):
        before = vae.log_weights(images, num_samples=200).elbo.mean(1)
    svi(problem, vae.guide, max_steps=100, learning_rate=0.02, compile=False)
    with seeded(0):
        after = vae.log_weights(images, num_samples=200).elbo.mean(1)
    gain = after - before
    assert gain.mean() > 4 * gain.std() / math.sqrt(200)


@pytest.mark.parametrize("log_sd", [-45.0, -110.0])
@pytest.mark.parametrize(
    ("latents", "objective"),
    [("normal", Elbo()), ("normal", Elbo(analytic_kl=True)), ("logistic_normal", Elbo())],
    ids=["normal", "normal_closed_kl", "logistic_normal"],
)
def test_an_encoder_grown_sure_of_a_unit_trains_on_in_float32(latents, objective, log_sd):
    """σ whose square is no number, and σ that is none itself: the entropy widens q again."""
    vae = VAE(5, 3, (6,), latents=latents, seed=3).float()
    with torch.no_grad():
        vae.encoder.network[-1].weight[:3] = 0.0
        vae.encoder.network[-1].bias[3:] = log_sd
    generator = torch.Generator().manual_seed(0)
    images = torch.bernoulli(torch.full((40, 5), 0.4).float(), generator=generator)
    problem = Problem(vae.model, images, batch_size=20)
    options = {"max_steps": 20, "learning_rate": 0.01, "compile": False}
    svi(problem, vae.guide, objective=objective, **options)
    assert all(bool(weight.isfinite().all()) for weight in vae.parameters())
    assert bool((vae.encoder.network[-1].bias[3:] > log_sd + 0.05).all())


# ---- likelihoods ------------------------------------------------------------------------------


def test_grey_levels_follow_the_categorical_formula():
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.5, -0.5]], dtype=torch.float64)
    pixels = GreyLevels(logits)
    levels = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    probability = logits.exp() / logits.exp().sum(-1, keepdim=True)
    every = pixels.log_prob(levels[:, None]).exp()  # [levels, pixels]
    torch.testing.assert_close(every, probability.T)
    torch.testing.assert_close(pixels.mean, (probability * levels).sum(-1))
    second = (probability * levels**2).sum(-1)
    torch.testing.assert_close(pixels.variance, second - pixels.mean**2)
    assert pixels.expand((4, 2)).log_prob(levels[0]).shape == (4, 2)
    with seeded(0):
        draws = pixels.sample((4000,))
    for d in range(2):
        counts = [(draws[:, d] == level).sum().item() for level in levels]
        law = multinomial(4000, probability[d].numpy())
        errors = np.sqrt(np.diag(law.cov()))
        assert (np.abs(np.array(counts) - law.mean()) < 4 * errors).all()


def test_a_categorical_vae_has_the_likelihood_of_its_logits():
    vae = VAE(4, 2, (3,), likelihood="categorical", num_levels=5, seed=2).double()
    latents = torch.tensor([[0.3, -1.0], [2.0, 0.1]], dtype=torch.float64)
    levels = torch.tensor([[0, 4, 2, 1], [3, 3, 0, 4]])
    logits = vae.decoder.network(latents).reshape(2, 4, 5)
    expected = torch.log_softmax(logits, -1).gather(-1, levels[..., None]).sum((-1, -2))
    torch.testing.assert_close(vae.decoder(latents).log_prob(levels / 4.0), expected)
    images, _ = vae.simulate(300, seed=0)
    assert images.mul(4).unique().tolist() == [0, 1, 2, 3, 4]
    vae.check(images)


def test_pixels_that_a_likelihood_does_not_describe_are_refused():
    vae = VAE(4, 2, (3,), likelihood="categorical", num_levels=3)
    vae.check(torch.tensor([[0.0, 0.5, 1.0, 0.5]]))
    for wrong in (0.25, 1.5, -0.5, math.nan):
        with pytest.raises(DataError, match=rf"3 grey levels.*got {wrong:g}; .*quantise"):
            vae.check(torch.tensor([[0.0, wrong, 1.0, 0.5]]))
    with pytest.raises(DataError, match="3 grey levels"):
        vae.check(load(likelihood="categorical", num_levels=4).train[:, :4])


@pytest.mark.parametrize("likelihood", ["gaussian", "categorical"])
def test_bounds_of_other_likelihoods_against_quadrature(likelihood):
    vae = small("normal", 1, likelihood=likelihood)
    if likelihood == "gaussian":  # else one pixel alone pins z down
        with torch.no_grad():
            vae.decoder.log_noise_sd.fill_(0.5)
    images, _ = vae.simulate(6, seed=0)
    points, mass = prior_quadrature("normal", 1.0)
    log_likelihood = vae.decoder(points[:, None]).log_prob(images)
    exact = (log_likelihood + mass.log()[:, None]).logsumexp(0).detach()
    with seeded(1):
        log_w = vae.log_weights(images, num_samples=20_000).total
    bound = log_w.logsumexp(0) - math.log(20_000)
    error = (log_w - bound).exp().std(0) / math.sqrt(20_000)
    assert (error < 0.05).all()
    assert ((bound - exact).abs() < 4 * error).all()


def test_options_that_make_no_vae_are_refused():
    with pytest.raises(OptionError, match=r"latents: expected one of .*'laplace'"):
        VAE(4, 2, latents="laplace")
    for latents in ON_THE_SIMPLEX:
        with pytest.raises(OptionError, match=f"latent_dim: {latents} latents need at least 2"):
            VAE(4, 1, latents=latents)
    with pytest.raises(OptionError, match="concentration: expected a number above 0, got 0"):
        VAE(4, 2, latents="dirichlet", concentration=0.0)
    with pytest.raises(OptionError, match="num_levels: the bernoulli likelihood has no grey"):
        VAE(4, 2, num_levels=4)
    with pytest.raises(OptionError, match="num_levels: expected at least 2, got 1"):
        VAE(4, 2, likelihood="categorical", num_levels=1)
    assert len(pyro.get_param_store()) == 0
