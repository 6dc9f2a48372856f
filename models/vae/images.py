"""Images for a VAE: the digits that ship, or MNIST from a folder, made fit for a likelihood.

A grey image is a table of counts 0..top (16 for the digits, 255 for MNIST), and neither pixel
likelihood describes those. So each is given data it does describe:

    bernoulli   one binary draw a pixel, P(x = 1) = count / top, made once (stochastic
                binarisation, Salakhutdinov & Murray, ICML 2008);
    gaussian    x = (count + u) / (top + 1), u ~ Uniform(0, 1): a density on [0, 1] that bounds
                the probability of the counts (dequantisation, Theis, van den Oord & Bethge,
                ICLR 2016). Without u, a pixel that never varies has an unbounded density.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.data import load_digits, read_idx
from vitools.errors import DataError, FileError, OptionError


class ImageData(NamedTuple):
    """Flat images [n, height·width] of torch's default dtype, their labels [n], and the shape."""

    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    shape: tuple[int, int]


def load(
    folder: str | Path | None = None, *, likelihood: str = "bernoulli", seed: int = 0
) -> ImageData:
    """Digits with a held-out part, as pixels which the likelihood describes.

    :param folder: where the four MNIST files lie (``train-images-idx3-ubyte`` and so on, plain or
        ``.gz``); without it, the 1797 embedded 8×8 digits, a random fifth of them held out.
    :param likelihood: ``"bernoulli"`` or ``"gaussian"``, as given to :class:`VAE`.
    :param seed: of the split and of the binarisation or dequantisation.

    >>> load().train.shape, load().held_out.shape
    (torch.Size([1438, 64]), torch.Size([359, 64]))
    """
    if likelihood not in _PIXELS:
        raise OptionError(f"likelihood: expected one of {list(_PIXELS)}, got {likelihood!r}")
    generator = torch.Generator().manual_seed(seed)
    if folder is None:
        digits = load_digits()
        images, labels = torch.tensor(digits.images), torch.tensor(digits.labels)
        order = torch.randperm(len(images), generator=generator)
        held_out, train = order.tensor_split([len(order) // 5])
        parts = [(images[index], labels[index]) for index in (train, held_out)]
        top = 16
    else:
        parts = [_read_mnist(Path(folder), name) for name in ("train", "t10k")]
        top = 255
    pixels = _PIXELS[likelihood]
    (train_images, train_labels), (held_out_images, held_out_labels) = parts
    return ImageData(
        train=pixels(train_images.flatten(1), top, generator),
        train_labels=train_labels.long(),
        held_out=pixels(held_out_images.flatten(1), top, generator),
        held_out_labels=held_out_labels.long(),
        shape=(train_images.shape[1], train_images.shape[2]),
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


_PIXELS = {"bernoulli": binarise, "gaussian": dequantise}


def _counts(counts: Tensor, top: int) -> Tensor:
    if counts.numel() and not (counts.min() >= 0 and counts.max() <= top):
        raise DataError(
            f"counts: expected pixels 0 to {top}, got {counts.min():g} to {counts.max():g}"
        )
    return counts.to(torch.get_default_dtype())


def _read_mnist(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    images = _read(folder, f"{name}-images-idx3-ubyte", num_dims=3)
    labels = _read(folder, f"{name}-labels-idx1-ubyte", num_dims=1)
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} {name} images but {len(labels)} labels")
    return images, labels


def _read(folder: Path, name: str, num_dims: int) -> Tensor:
    candidates = [folder / name, folder / f"{name}.gz"]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise FileError(f"{folder}: neither {name} nor {name}.gz is there; name the MNIST folder")
    values = torch.tensor(read_idx(path))
    if values.ndim != num_dims:
        raise DataError(f"{path}: expected {num_dims} dimensions, got {values.ndim}")
    return values
