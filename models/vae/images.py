"""Images for a VAE: the digits that ship, or those of a folder, made fit for a likelihood.

A grey image is a table of counts 0..top (16 for the digits, 255 for MNIST), and no pixel
likelihood describes those. So each is given data it does describe:

    bernoulli   one binary draw a pixel, P(x = 1) = count / top, made once (stochastic
                binarisation, Salakhutdinov & Murray, ICML 2008);
    gaussian    x = (count + u) / (top + 1), u ~ Uniform(0, 1): a density on [0, 1] that bounds
                the probability of the counts (dequantisation, Theis, van den Oord & Bethge,
                ICLR 2016). Without u, a pixel that never varies has an unbounded density;
    categorical x = l / (L - 1), l = ⌊L count / (top + 1)⌋: the L equal classes of the counts.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.data import load_digits
from vitools.errors import DataError, OptionError
from vitools.models.vae.folders import GreyImages, read_images, split
from vitools.models.vae.networks.likelihoods import DECODERS, NUM_LEVELS


class ImageData(NamedTuple):
    """Flat images [n, height·width] of torch's default dtype, their labels [n], and the shape."""

    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    shape: tuple[int, int]


def load(
    folder: str | Path | None = None,
    *,
    likelihood: str = "bernoulli",
    num_levels: int = NUM_LEVELS,
    seed: int = 0,
) -> ImageData:
    """Images with a held-out part, as pixels which the likelihood describes.

    :param folder: with MNIST's four files, or with arrays, or one file of arrays; see
        ``folders.py``. Without it, the 1797 embedded 8×8 digits, a random fifth of them held out.
    :param likelihood: ``"bernoulli"``, ``"gaussian"`` or ``"categorical"``, as given to
        :class:`VAE`. An array of intensities is taken as it is by the second.
    :param num_levels: grey levels for the third.
    :param seed: of the split and of the binarisation or dequantisation.

    >>> load().train.shape, load().held_out.shape
    (torch.Size([1438, 64]), torch.Size([359, 64]))
    """
    if likelihood not in DECODERS:
        raise OptionError(f"likelihood: expected one of {list(DECODERS)}, got {likelihood!r}")
    generator = torch.Generator().manual_seed(seed)
    grey = _embedded(generator) if folder is None else read_images(folder, generator)

    def pixels(images: Tensor) -> Tensor:
        flat, top = images.flatten(1), grey.top
        if likelihood == "bernoulli":
            return binarise(flat, 1 if top is None else top, generator)
        if likelihood == "gaussian":
            return flat.to(_dtype()) if top is None else dequantise(flat, top, generator)
        if top is None:
            flat, top = (256 * flat).floor().clamp(max=255), 255
        return quantise(flat, top, num_levels)

    return ImageData(
        train=pixels(grey.train),
        train_labels=grey.train_labels.long(),
        held_out=pixels(grey.held_out),
        held_out_labels=grey.held_out_labels.long(),
        shape=(grey.train.shape[1], grey.train.shape[2]),
    )


def binarise(counts: Tensor, top: int, generator: torch.Generator) -> Tensor:
    """One draw x ~ Bernoulli(count / top) for each pixel, counts being 0..top."""
    intensity = _counts(counts, top) / top
    return torch.bernoulli(intensity, generator=generator)


def dequantise(counts: Tensor, top: int, generator: torch.Generator) -> Tensor:
    """(count + u) / (top + 1) with u ~ Uniform(0, 1): continuous pixels in [0, 1]."""
    counts = _counts(counts, top)
    noise = torch.rand(counts.shape, generator=generator, dtype=counts.dtype)
    return (counts + noise) / (top + 1)


def quantise(counts: Tensor, top: int, num_levels: int = NUM_LEVELS) -> Tensor:
    """The class of each count among ``num_levels`` equal ones, as a grey level from 0 to 1.

    >>> quantise(torch.tensor([0, 5, 10, 15]), top=15, num_levels=3)
    tensor([0.0000, 0.0000, 0.5000, 1.0000])
    """
    if num_levels < 2:
        raise OptionError(f"num_levels: expected at least 2, got {num_levels}")
    level = (num_levels * _counts(counts, top) / (top + 1)).floor()
    return level / (num_levels - 1)


def _counts(counts: Tensor, top: int) -> Tensor:
    if counts.numel() and not (counts.min() >= 0 and counts.max() <= top):
        raise DataError(
            f"counts: expected pixels 0 to {top}, got {counts.min():g} to {counts.max():g}"
        )
    return counts.to(_dtype())


def _dtype() -> torch.dtype:
    return torch.get_default_dtype()


def _embedded(generator: torch.Generator) -> GreyImages:
    digits = load_digits()
    images, labels = torch.tensor(digits.images), torch.tensor(digits.labels)
    return GreyImages(*split(images, labels, generator), top=16)
