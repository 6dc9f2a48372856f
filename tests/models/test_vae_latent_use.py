"""What latents are used for, against quadrature, closed forms and the sum they must make."""

import math

import numpy as np
import pytest
import torch

from vitools.errors import DataError
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import (
    VAE,
    active_units,
    average,
    elbo_terms,
    latent_information,
    unit_variances,
)


def gaussian_vae(latent_dim=1):
    """A linear encoder: m = A x + b, one sd a coordinate whatever the image."""
    vae = VAE(4, latent_dim, hidden=(), likelihood="gaussian").double()
    with torch.no_grad():
        vae.encoder.network[0].weight[latent_dim:] = 0.0
        vae.encoder.network[0].bias[latent_dim:] = math.log(0.4)
    return vae


def pixels(num_images):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(num_images, 4, generator=generator, dtype=torch.float64)


def test_information_and_misfit_to_the_prior_against_quadrature():
    vae, images = gaussian_vae(), pixels(50)
    means = vae.encode(images).numpy()[:, 0]
    grid = np.linspace(-12, 12, 20_001)
    mixture = np.exp(-0.5 * ((grid[:, None] - means) / 0.4) ** 2).mean(1) / (
        0.4 * math.sqrt(2 * math.pi)
    )
    prior = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)
    inside = mixture > 0
    entropy = -np.trapezoid(np.where(inside, mixture * np.log(mixture + ~inside), 0), grid)
    information = entropy - 0.5 * math.log(2 * math.pi * math.e * 0.4**2)
    misfit = -entropy - np.trapezoid(mixture * np.log(prior), grid)

    draws = [latent_information(vae, images, seed=seed) for seed in range(40)]
    for found, exact in (
        ([d.value.value for d in draws], information),
        ([d.marginal_kl.value for d in draws], misfit),
    ):
        assert abs(np.mean(found) - exact) < 4 * np.std(found, ddof=1) / math.sqrt(40)
    assert np.mean([d.value.standard_error for d in draws]) < 0.2
    assert draws[0].cap == pytest.approx(math.log(50))


def test_both_parts_sum_to_the_mean_kl():
    vae, images = VAE(4, 3, (6,), likelihood="gaussian", seed=1).double(), pixels(400)
    found = latent_information(vae, images)
    total = average(elbo_terms(vae, images).kl)
    error = math.hypot(found.value.standard_error, found.marginal_kl.standard_error)
    assert abs(found.value.value + found.marginal_kl.value - total.value) < 4 * error
    assert 0 < found.value.value < found.cap


def test_an_encoder_that_tells_every_image_apart_meets_the_cap():
    vae, images = gaussian_vae(2), pixels(30)
    with torch.no_grad():
        vae.encoder.network[0].bias[2:] = -20.0
    found = latent_information(vae, images)
    assert found.value.value == pytest.approx(math.log(30), abs=1e-9)
    assert found.value.standard_error < 1e-9


def test_a_layer_above_tells_nothing_that_the_first_did_not():
    deep, images = (
        HierarchicalVAE(4, (3, 2), ((5,), (4,)), likelihood="gaussian").double(),
        pixels(60),
    )
    flat = VAE(4, 3, (5,), likelihood="gaussian").double()
    flat.encoder.load_state_dict(deep.encoder1.state_dict())
    # z1 is drawn first in both, by the same seed: q(z2 | z1) is in both densities and cancels
    both, first = latent_information(deep, images, seed=3), latent_information(flat, images, seed=3)
    assert both.value.value == pytest.approx(first.value.value, abs=1e-9)


def test_work_in_parts_gives_the_same(monkeypatch):
    from vitools.models.vae.evaluation import latent_use

    vae, images = gaussian_vae(), pixels(50)
    whole = latent_information(vae, images)
    monkeypatch.setattr(latent_use, "MOST_PAIRS", 64)
    parts = latent_information(vae, images)
    assert parts.value.value == pytest.approx(whole.value.value, abs=1e-12)
    assert unit_variances(vae, images)["z"].shape == (1,)


def test_units_that_move_with_the_image_are_active():
    vae, images = gaussian_vae(3), pixels(2000)
    with torch.no_grad():
        vae.encoder.network[0].weight[:3] = (
            torch.tensor([1.0, 0.05, 0.15])[:, None] * torch.eye(4)[:3]
        )
    # Means are x_1, 0.05 x_2 and 0.15 x_3; 8192 draws or so give the prior's variance to 2 %.
    variance = unit_variances(vae, images)["z"]
    spread = images.var(0)[:3] * torch.tensor([1.0, 0.0025, 0.0225])
    torch.testing.assert_close(variance, spread.double(), rtol=0.08, atol=0)
    assert active_units(vae, images) == {"z": 2}


def test_noise_of_the_layers_below_makes_no_unit_active():
    deep = HierarchicalVAE(4, (3, 2), ((5,), (4,)), likelihood="gaussian").double()
    with torch.no_grad():  # z1 is the prior's draw whatever the image, and z2 follows z1
        deep.encoder1.network[-1].weight.zero_()
        deep.encoder2.network[-1].weight.mul_(3)
    images = pixels(2000)
    variances = unit_variances(deep, images)
    assert variances["z1"].abs().max() < 1e-12
    # Var_x of a mean over 64 draws: noise up to Var(m_2)/64, taken off, leaves its error alone
    assert variances["z2"].abs().max() < 0.01
    assert active_units(deep, images) == {"z1": 0, "z2": 0}


def test_latents_on_the_simplex_have_information_too():
    vae = VAE(4, 3, (5,), likelihood="gaussian", latents="dirichlet").double()
    found = latent_information(vae, pixels(40))
    assert math.isfinite(found.value.value)
    assert set(active_units(vae, pixels(40))) == {"z"}


@pytest.mark.parametrize("figure", [active_units, latent_information])
def test_one_image_tells_nothing(figure):
    with pytest.raises(DataError, match="images: expected at least 2"):
        figure(gaussian_vae(), pixels(1))
