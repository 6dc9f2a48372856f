"""Pictures of a trained VAE; each function returns a matplotlib ``Figure`` (``figure.savefig``).

Every image drawn from a latent is the decoder's mean E[x | z], in ink: white 0, black 1. The
figures are built without ``pyplot``, so no global figure or backend is touched.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.vae.model import VAE

Shape = tuple[int, int]


def plot_reconstructions(
    vae: VAE, images: Tensor, num_images: int = 10, shape: Shape | None = None
) -> Figure:
    """The first images [n, num_pixels] above their reconstructions through the encoder's mean.

    :param shape: height and width of an image; square where it is not given (in every picture).
    """
    _at_least("num_images", num_images, 1)
    images = images[:num_images]
    reconstructed = vae.reconstruct(images)
    figure = _gallery([images, reconstructed], _image_shape(vae, shape))
    for axes, name in zip(figure.axes[:: len(images)], ("image", "reconstruction"), strict=True):
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def plot_prior_samples(
    vae: VAE, num_images: int = 60, seed: int = 0, shape: Shape | None = None
) -> Figure:
    """Mean images of latents drawn from the prior: what the model alone believes in."""
    _at_least("num_images", num_images, 1)
    weight = next(vae.parameters())
    with seeded(seed):
        latents = vae.prior(weight).sample(torch.Size([num_images]))
    rows = vae.decode(latents).split(10)
    return _gallery(rows, _image_shape(vae, shape))


def plot_latent_plane(vae: VAE, num_per_side: int = 15, shape: Shape | None = None) -> Figure:
    """The plane of a two-dimensional latent, as the mean images at a grid of its points.

    The grid has equal steps of prior probability in each coordinate: z = Φ⁻¹((i + ½) / n).
    """
    if vae.latent_dim != 2:
        raise OptionError(
            f"latent_dim: the plane needs a VAE with latent_dim=2, this one has {vae.latent_dim}; "
            "see plot_interpolation for a line through more dimensions"
        )
    _at_least("num_per_side", num_per_side, 2)
    height, width = _image_shape(vae, shape)
    weight = next(vae.parameters())
    levels = (torch.arange(num_per_side, dtype=torch.float64) + 0.5) / num_per_side
    steps = torch.special.ndtri(levels).to(weight)
    first, second = torch.meshgrid(steps, steps.flip(0), indexing="xy")
    images = vae.decode(torch.stack([first, second], dim=-1))
    tiles = images.reshape(num_per_side, num_per_side, height, width)
    # A blank pixel below and right of each: the shipped digits fill their height and would touch.
    mosaic = (
        torch.nn.functional.pad(tiles, (0, 1, 0, 1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    )

    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        mosaic.cpu().numpy(),
        **_INK,
        extent=(0, num_per_side, 0, num_per_side),
        aspect=(height + 1) / (width + 1),
    )
    shown = np.linspace(0, num_per_side - 1, min(num_per_side, 5)).round().astype(int)
    positions = shown + 0.5
    labels = [f"{steps[i]:.1f}" for i in shown]
    axes.set_xticks(positions, labels)
    axes.set_yticks(positions, labels)
    axes.set(xlabel="z₁", ylabel="z₂")
    return figure


def plot_interpolation(
    vae: VAE, first: Tensor, second: Tensor, num_steps: int = 10, shape: Shape | None = None
) -> Figure:
    """Mean images along straight lines in latent space.

    :param first: images [n, num_pixels] where the lines start, one row of the picture each.
    :param second: images of the same shape where they end.
    """
    _at_least("num_steps", num_steps, 2)
    vae.check(first)
    vae.check(second)
    if first.shape != second.shape:
        raise DataError(
            f"second: expected as many images as first, {len(first)}, got {len(second)}"
        )
    with torch.no_grad():
        starts, ends = vae.encoder(first).mean, vae.encoder(second).mean
    weights = torch.linspace(0, 1, num_steps, dtype=first.dtype, device=first.device)
    lines = torch.lerp(starts[:, None], ends[:, None], weights[:, None])
    rows = torch.cat([first[:, None], vae.decode(lines), second[:, None]], dim=1)
    figure = _gallery(list(rows), _image_shape(vae, shape))
    for axes, name in ((figure.axes[0], "from"), (figure.axes[num_steps + 1], "to")):
        axes.set_title(name)
    return figure


def plot_latent_scatter(vae: VAE, images: Tensor, labels: Tensor) -> Figure:
    """The encoder's mean of each image [n, num_pixels], coloured by its label [n].

    Beyond two dimensions it shows the two principal components of those means.
    """
    if vae.latent_dim < 2:
        raise OptionError("latent_dim: a scatter needs at least 2 dimensions, this VAE has 1")
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"labels: expected one for each of {len(images)} images, got {list(labels.shape)}"
        )
    with torch.no_grad():
        means = vae.encoder(vae.check(images)).mean.cpu()
    names = ["z₁", "z₂"]
    if vae.latent_dim > 2:
        centred = means - means.mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        means = centred @ directions[:2].mT
        names = ["first principal component of z", "second principal component of z"]

    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab10"]
    for i, label in enumerate(labels.unique().tolist()):
        points = means[labels.cpu() == label].numpy()
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=10,
            color=colours(i % 10),
            alpha=0.6,
            linewidths=0,
            label=label,
        )
        axes.text(
            float(np.median(points[:, 0])),
            float(np.median(points[:, 1])),
            str(label),
            ha="center",
            va="center",
            weight="bold",
            bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colours(i % 10)},
        )
    axes.set(xlabel=names[0], ylabel=names[1])
    return figure


_INK: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1, "interpolation": "nearest"}


def _gallery(rows: Sequence[Tensor], shape: Shape) -> Figure:
    """Rows of images, each [n, num_pixels], on a grid of axes in reading order."""
    num_columns = max(len(row) for row in rows)
    size = (0.9 * num_columns + 0.3, 0.9 * shape[0] / shape[1] * len(rows) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), num_columns, squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row:
            axes.set(xticks=[], yticks=[], frame_on=False)
        for axes, image in zip(axes_row, row, strict=False):
            axes.imshow(image.reshape(shape).cpu().numpy(), **_INK)
    return figure


def _image_shape(vae: VAE, shape: Shape | None) -> Shape:
    side = math.isqrt(vae.num_pixels)
    height, width = (side, side) if shape is None else shape
    if height * width != vae.num_pixels:
        raise OptionError(
            f"shape: expected height × width = {vae.num_pixels} pixels, got {height} × {width}"
        )
    return height, width


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise OptionError(f"{name}: expected at least {least}, got {value}")
