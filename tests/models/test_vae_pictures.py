"""Pictures of a VAE: what each panel holds, that they repeat, what they refuse."""

import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitools.errors import DataError, OptionError
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import VAE, roc
from vitools.models.vae import pictures as draw


@pytest.fixture
def vae():
    return VAE(num_pixels=12, latent_dim=2, hidden=(5,), seed=0).double()


@pytest.fixture
def images(vae):
    return vae.simulate(9, seed=1).images


SHAPE = (4, 3)


def panels(figure):
    return [axes.images[0].get_array().data for axes in figure.axes if axes.images]


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_reconstructions_show_each_image_above_its_own(vae, images):
    figure = draw.plot_reconstructions(vae, images, num_images=4, shape=SHAPE)
    shown = panels(figure)
    assert len(shown) == 8
    reconstructed = vae.reconstruct(images[:4])
    for i in range(4):
        assert np.array_equal(shown[i], images[i].reshape(SHAPE).numpy())
        assert np.allclose(shown[4 + i], reconstructed[i].reshape(SHAPE).numpy())
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["image", "reconstruction"]


def test_prior_samples_are_decoded_means_and_follow_the_seed(vae):
    first, again, other = (
        panels(draw.plot_prior_samples(vae, 13, seed, SHAPE)) for seed in (0, 0, 1)
    )
    assert len(first) == 13
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.min(first) > 0
    assert np.max(first) < 1


def test_latent_plane_places_each_latent(vae):
    figure = draw.plot_latent_plane(vae, num_per_side=3, shape=SHAPE)
    (mosaic,) = panels(figure)
    step = 0.9674215661017010  # Φ⁻¹(5/6)
    for row, second in enumerate((step, 0.0, -step)):
        for column, first in enumerate((-step, 0.0, step)):
            tile = mosaic[row * 5 : row * 5 + 4, column * 4 : column * 4 + 3]
            expected = vae.decode(torch.tensor([first, second], dtype=torch.float64))
            assert np.allclose(tile, expected.reshape(SHAPE).numpy())


def test_interpolation_starts_and_ends_at_the_reconstructions(vae, images):
    figure = draw.plot_interpolation(vae, images[:2], images[2:4], num_steps=5, shape=SHAPE)
    shown = np.reshape(panels(figure), (2, 7, 12))
    assert np.array_equal(shown[:, 0], images[:2].numpy())
    assert np.array_equal(shown[:, -1], images[2:4].numpy())
    assert np.allclose(shown[:, 1], vae.reconstruct(images[:2]).numpy())
    assert np.allclose(shown[:, -2], vae.reconstruct(images[2:4]).numpy())
    middle = (vae.encoder(images[:2]).mean + vae.encoder(images[2:4]).mean) / 2
    assert np.allclose(shown[:, 3], vae.decode(middle).numpy())


def test_scatter_shows_the_means_of_each_class(vae, images):
    labels = torch.tensor([0, 1, 2] * 3)
    axes = draw.plot_latent_scatter(vae, images, labels).axes[0]
    assert [points.get_label() for points in axes.collections] == ["0", "1", "2"]
    means = vae.encoder(images).mean.detach().numpy()
    for label, points in enumerate(axes.collections):
        assert np.allclose(points.get_offsets(), means[labels == label])


def test_scatter_of_more_dimensions_shows_principal_components():
    vae = VAE(num_pixels=12, latent_dim=4, hidden=(5,)).double()
    images, _ = vae.simulate(30, seed=1)
    axes = draw.plot_latent_scatter(vae, images, torch.zeros(30)).axes[0]
    shown = np.asarray(axes.collections[0].get_offsets())
    means = vae.encoder(images).mean.detach().numpy()
    largest = np.linalg.eigvalsh(np.cov(means.T, bias=True))[::-1][:2]
    assert np.allclose(np.cov(shown.T, bias=True), np.diag(largest))
    assert "principal component" in axes.get_xlabel()


def test_traversals_move_one_coordinate_at_a_time(images):
    vae = VAE(num_pixels=12, latent_dim=3, hidden=(5,), seed=0).double()
    with torch.no_grad():  # z₃ moves the picture most, z₁ not at all
        vae.decoder.network[0].weight.mul_(torch.tensor([0.0, 0.5, 3.0]))
    figure = draw.plot_traversals(vae, images[0], num_steps=3, reach=2.0, shape=SHAPE)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["z₃", "z₂", "z₁"]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["-2.0", "0.0", "2.0"]
    shown = np.reshape(panels(figure), (3, 3, 12))
    latents = vae.encode(images[:1])[0]
    for row, unit in ((0, 2), (1, 1)):
        for column, value in enumerate((-2.0, 0.0, 2.0)):
            moved = latents.clone()
            moved[unit] = value
            assert np.allclose(shown[row, column], vae.decode(moved).numpy())
    assert np.array_equal(shown[2, 0], shown[2, 2])
    few = draw.plot_traversals(vae, images[0], num_units=1, shape=SHAPE)
    assert [axes.get_ylabel() for axes in few.axes[::9]] == ["z₃"]


def test_prior_samples_of_several_layers_come_from_the_layer_next_to_the_image():
    deep = HierarchicalVAE(12, (3, 2), ((5,), (4,))).double()
    shown = panels(draw.plot_prior_samples(deep, 4, seed=2, shape=SHAPE))
    nearest, _ = deep.simulate(4, seed=2).latents
    assert np.allclose(np.reshape(shown, (4, 12)), deep.decode(nearest).numpy())


def test_rows_of_several_models_are_named(vae, images):
    figure = draw.plot_rows({"image": images[:3], "model": vae.reconstruct(images[:3])}, SHAPE)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["image", "model"]
    assert np.array_equal(np.reshape(panels(figure)[:3], (3, 12)), images[:3].numpy())


def test_alarms_are_drawn_with_their_area():
    curve = roc(torch.arange(4.0), torch.arange(4.0) + 1)
    axes = draw.plot_roc({"shifted": curve}).axes[0]
    line = axes.lines[0]
    assert np.array_equal(line.get_xdata(), curve.false_alarms)
    assert np.array_equal(line.get_ydata(), curve.true_alarms)
    (text,) = axes.get_legend().get_texts()
    assert text.get_text() == f"shifted: {curve.area:.3f} ± {curve.standard_error:.3f}"


def test_the_strangest_come_first_and_the_most_usual_below(vae, images):
    scores = torch.tensor([3.0, 1.0, 9.0, 4.0, 5.0, 2.0, 6.0, 8.0, 7.0])
    figure = draw.plot_strangest(vae, images, scores, 2, SHAPE)
    assert [axes.get_title() for axes in figure.axes] == ["9.0", "8.0", "1.0", "2.0"]
    expected = images[[2, 7, 1, 5]].numpy()
    assert np.array_equal(np.reshape(panels(figure), (4, 12)), expected)


def test_every_picture_renders_the_same_twice_without_pyplot(vae, images):
    labels = torch.arange(9) % 3
    state = torch.get_rng_state()
    drawings = [
        lambda: draw.plot_reconstructions(vae, images, shape=SHAPE),
        lambda: draw.plot_prior_samples(vae, 5, shape=SHAPE),
        lambda: draw.plot_latent_plane(vae, 4, SHAPE),
        lambda: draw.plot_interpolation(vae, images[:1], images[1:2], 3, SHAPE),
        lambda: draw.plot_latent_scatter(vae, images, labels),
        lambda: draw.plot_traversals(vae, images[0], 2, 3, shape=SHAPE),
        lambda: draw.plot_strangest(vae, images, torch.arange(9.0), 3, SHAPE),
        lambda: draw.plot_roc({"a": roc(torch.arange(4.0), torch.arange(4.0) + 1)}),
    ]
    for drawing in drawings:
        figure = drawing()
        assert isinstance(figure, Figure)
        first = pixels(figure)
        assert first.min() < 100
        assert np.array_equal(first, pixels(drawing()))
    assert torch.equal(state, torch.get_rng_state())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_refusals(vae, images):
    with pytest.raises(OptionError, match=r"shape: .*12 pixels, got 3 × 3"):
        draw.plot_prior_samples(vae, 4)
    with pytest.raises(OptionError, match="latent_dim=2, this one has 3"):
        draw.plot_latent_plane(VAE(12, 3, (4,)), shape=SHAPE)
    with pytest.raises(OptionError, match="at least 2 dimensions"):
        draw.plot_latent_scatter(VAE(12, 1, (4,)).double(), images, torch.zeros(9))
    with pytest.raises(OptionError, match="num_images: expected at least 1, got 0"):
        draw.plot_reconstructions(vae, images, 0, SHAPE)
    with pytest.raises(DataError, match="labels: expected one for each of 9"):
        draw.plot_latent_scatter(vae, images, torch.zeros(8))
    with pytest.raises(DataError, match="as many images as first, 2, got 3"):
        draw.plot_interpolation(vae, images[:2], images[:3], shape=SHAPE)
    with pytest.raises(DataError, match="scores: expected one for each of 9"):
        draw.plot_strangest(vae, images, torch.zeros(8), shape=SHAPE)
    other = VAE(12, 2, (4,), latents="kumaraswamy").double()
    with pytest.raises(OptionError, match="a normal prior, which this VAE has not"):
        draw.plot_latent_plane(other, shape=SHAPE)
    with pytest.raises(OptionError, match="a normal prior, which this VAE has not"):
        draw.plot_traversals(other, images[0], shape=SHAPE)
    with pytest.raises(DataError, match="pixels 0 or 1, got nan"):
        draw.plot_reconstructions(vae, torch.full_like(images, math.nan), shape=SHAPE)
