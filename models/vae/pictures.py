"""Pictures of a trained VAE; each function returns a matplotlib ``Figure`` (``figure.savefig``).

Every image drawn from a latent is the decoder's mean E[x | z], in ink: white 0, black 1. The
figures are built without ``pyplot``, so no global figure or backend is touched.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models.vae.evaluation.anomaly import Roc
from vitools.models.vae.model import VAE
from vitools.models.vae.networks.latents import LATENTS
from vitools.notebook.picture import Picture

Shape = tuple[int, int]


class Generator(Protocol):
    """What a picture of images alone needs of a model, of one or of several layers of latents."""

    num_pixels: int

    def decode(self, latents: Tensor, /) -> Tensor:
        """Mean images of latents."""

    def reconstruct(self, images: Tensor, /) -> Tensor:
        """Images through the latents and back."""

    def simulate(self, num_images: int, /, seed: int) -> Any:
        """Images and the ``latents`` behind them, one tensor or those of each layer."""


def plot_reconstructions(
    vae: Generator, images: Tensor, num_images: int = 10, shape: Shape | None = None
) -> Figure:
    """The first images [n, num_pixels] above their reconstructions through the encoder's mean.

    :param shape: height and width of an image; square where it is not given (in every picture).
    """
    _at_least("num_images", num_images, 1)
    images = images[:num_images]
    reconstructed = vae.reconstruct(images)
    return plot_rows({"image": images, "reconstruction": reconstructed}, shape)


def plot_prior_samples(
    vae: Generator, num_images: int = 60, seed: int = 0, shape: Shape | None = None
) -> Figure:
    """Mean images of latents drawn from the prior: what the model alone believes in."""
    _at_least("num_images", num_images, 1)
    rows = sample_means(vae, num_images, seed).split(10)
    return _gallery(rows, _shape_of(vae.num_pixels, shape))


def sample_means(vae: Generator, num_images: int, seed: int = 0) -> Tensor:
    """Mean images [num_images, num_pixels] of latents drawn from the prior."""
    latents = vae.simulate(num_images, seed).latents
    nearest = latents if isinstance(latents, Tensor) else latents[0]  # z_1 of several layers
    return vae.decode(nearest)


def plot_rows(rows: Mapping[str, Tensor], shape: Shape | None = None) -> Figure:
    """Images [n, num_pixels] of each name in a row: several models side by side."""
    first = next(iter(rows.values()))
    figure = _gallery(list(rows.values()), _shape_of(first.shape[1], shape))
    _name_rows(figure, rows, len(first))
    return figure


def plot_latent_plane(vae: VAE, num_per_side: int = 15, shape: Shape | None = None) -> Figure:
    """The plane of a two-dimensional latent, as the mean images at a grid of its points.

    The grid has equal steps of prior probability in each coordinate: z = Φ⁻¹((i + ½) / n).
    """
    if vae.latent_dim != 2:
        raise OptionError(
            f"latent_dim: the plane needs a VAE with latent_dim=2, this one has {vae.latent_dim}; "
            "see plot_interpolation for a line through more dimensions"
        )
    _needs_normal_latents(vae)
    _at_least("num_per_side", num_per_side, 2)
    height, width = _shape_of(vae.num_pixels, shape)
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

    figure = Picture(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        mosaic.cpu().numpy(),
        **_INK,
        extent=(0, num_per_side, 0, num_per_side),
        aspect=(height + 1) / (width + 1),
    )
    shown = np.linspace(0, num_per_side - 1, min(num_per_side, 5)).round().astype(int)
    positions = shown + 0.5
    labels = [f"{steps[i]:.1f}".replace("-", "−") for i in shown]
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
    if first.shape != second.shape:
        raise DataError(
            f"second: expected as many images as first, {len(first)}, got {len(second)}"
        )
    starts, ends = vae.encode(first), vae.encode(second)
    weights = torch.linspace(0, 1, num_steps, dtype=first.dtype, device=first.device)
    lines = torch.lerp(starts[:, None], ends[:, None], weights[:, None])
    rows = torch.cat([first[:, None], vae.decode(lines), second[:, None]], dim=1)
    figure = _gallery(list(rows), _shape_of(vae.num_pixels, shape))
    for axes, name in ((figure.axes[0], "from"), (figure.axes[num_steps + 1], "to")):
        axes.set_title(name)
    return figure


def plot_traversals(
    vae: VAE,
    image: Tensor,
    num_units: int = 8,
    num_steps: int = 9,
    reach: float = 2.5,
    shape: Shape | None = None,
) -> Figure:
    """What each latent coordinate does: a row for one, moved from -reach to reach, the others held.

    :param image: [num_pixels], whose latent mean is held in the other coordinates.
    :param num_units: rows; the coordinates whose step moves the picture most, those first.
    """
    _at_least("num_units", num_units, 1)
    _at_least("num_steps", num_steps, 2)
    _needs_normal_latents(vae)
    (mean,) = vae.encode(image[None])
    values = torch.linspace(-reach, reach, num_steps).to(mean)
    units = torch.arange(vae.latent_dim, device=mean.device)
    latents = mean.repeat(vae.latent_dim, num_steps, 1)
    latents[units, :, units] = values
    rows = vae.decode(latents)
    movement = rows.var(1).sum(-1)
    shown = movement.argsort(descending=True)[:num_units].tolist()
    figure = _gallery([rows[unit] for unit in shown], _shape_of(vae.num_pixels, shape))
    _name_rows(figure, [_subscript("z", unit + 1) for unit in shown], num_steps)
    for axes, value in zip(figure.axes, values.tolist(), strict=False):
        axes.set_title(f"{value:.1f}")
    return figure


def plot_latent_scatter(vae: VAE, images: Tensor, labels: Tensor) -> Figure:
    """The encoder's mean of each image [n, num_pixels], marked by its label [n], a number.

    Beyond two dimensions it shows the two principal components of those means.
    """
    if vae.latent_dim < 2:
        raise OptionError("latent_dim: a scatter needs at least 2 dimensions, this VAE has 1")
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"labels: expected one for each of {len(images)} images, got {list(labels.shape)}"
        )
    means = vae.encode(images).cpu()
    names = ["z₁", "z₂"]
    if vae.latent_dim > 2:
        centred = means - means.mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        means = centred @ directions[:2].mT
        names = ["first principal component of z", "second principal component of z"]

    figure = Picture(figsize=(6.5, 6), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab10"]
    for i, label in enumerate(labels.unique().tolist()):
        points = means[labels.cpu() == label].numpy()
        axes.scatter(
            points[:, 0],
            points[:, 1],
            marker=f"${label:g}$",
            s=35,
            color=colours(i % 10),
            linewidths=0,
            label=f"{label:g}",
        )
    axes.set(xlabel=names[0], ylabel=names[1])
    return figure


def plot_roc(curves: Mapping[str, Roc]) -> Figure:
    """True against false alarms, a curve for each name, with its area in the legend."""
    figure = Picture(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        label = f"{name}: {curve.area:.3f} ± {curve.standard_error:.3f}"
        axes.plot(curve.false_alarms.cpu(), curve.true_alarms.cpu(), label=label)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes.set(
        xlabel="ordinary images taken for anomalies",
        ylabel="anomalies found",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    axes.legend(title="area under the curve", loc="lower right", frameon=False)
    return figure


def plot_strangest(
    vae: Generator, images: Tensor, scores: Tensor, num_images: int = 10, shape: Shape | None = None
) -> Figure:
    """The images [n, num_pixels] of the highest scores [n] above those of the lowest."""
    _at_least("num_images", num_images, 1)
    if scores.shape != images.shape[:1]:
        raise DataError(
            f"scores: expected one for each of {len(images)} images, got {list(scores.shape)}"
        )
    order = scores.argsort(descending=True)
    rows = [order[:num_images], order.flip(0)[:num_images]]
    figure = _gallery([images[row] for row in rows], _shape_of(vae.num_pixels, shape))
    for axes, score in zip(figure.axes, scores[torch.cat(rows)].tolist(), strict=True):
        axes.set_title(f"{score:.1f}")
    _name_rows(figure, ("strange", "usual"), len(rows[0]))
    return figure


_INK: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1, "interpolation": "nearest"}


def _gallery(rows: Sequence[Tensor], shape: Shape) -> Figure:
    """Rows of images, each [n, num_pixels], on a grid of axes in reading order."""
    num_columns = max(len(row) for row in rows)
    size = (0.9 * num_columns + 0.3, 0.9 * shape[0] / shape[1] * len(rows) + 0.3)
    figure = Picture(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), num_columns, squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row:
            axes.set(xticks=[], yticks=[], frame_on=False)
        for axes, image in zip(axes_row, row, strict=False):
            axes.imshow(image.reshape(shape).cpu().numpy(), **_INK)
    return figure


def _name_rows(figure: Figure, names: Iterable[str], num_columns: int) -> None:
    for axes, name in zip(figure.axes[::num_columns], names, strict=True):
        axes.set_ylabel(name, rotation=0, ha="right", va="center")


def _shape_of(num_pixels: int, shape: Shape | None) -> Shape:
    side = math.isqrt(num_pixels)
    height, width = (side, side) if shape is None else shape
    if height * width != num_pixels:
        raise OptionError(
            f"shape: expected height × width = {num_pixels} pixels, got {height} × {width}"
        )
    return height, width


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise OptionError(f"{name}: expected at least {least}, got {value}")


def _needs_normal_latents(vae: VAE) -> None:
    if vae.latents is not LATENTS["normal"]:
        raise OptionError(
            "latents: the picture's steps are those of a normal prior, which this VAE has not; see "
            "plot_interpolation for lines between images"
        )


def _subscript(name: str, number: int) -> str:
    return name + str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
