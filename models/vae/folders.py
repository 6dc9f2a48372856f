"""Grey images from a folder or a file: MNIST's own files, the fixed binarised MNIST, or arrays.

A folder holds one of

    train-images-idx3-ubyte …             MNIST's four files, plain or ``.gz``
    train.npy, test.npy                   images [n, height, width] or [n, pixels]; with them, if
                                          wanted, train_labels.npy, test_labels.npy [n]
    anything.npz                          the same names inside one file

and where there is one array of images alone, under any name, a random fifth is held out. Arrays of
whole numbers are counts 0..top, top the largest of them; arrays of other numbers are intensities,
as they are. The binarised MNIST of Larochelle and Murray (AISTATS 2011) is read from
``binarized_mnist_larochelle.npz``, rows of 784 bits packed into bytes.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitools.data import read_idx, read_table
from vitools.errors import DataError, FileError

PARTS = {"train": ("train",), "held_out": ("test", "held_out", "valid")}
"""The names of the two parts; the first that is there is taken."""


class GreyImages(NamedTuple):
    """Images [n, height, width] with labels [n], 0 where there are none; ``top`` of counts, or None."""

    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    top: int | None


def read_images(path: str | Path, generator: torch.Generator) -> GreyImages:
    """What is found at ``path``; the generator chooses what is held out where the files do not."""
    path = Path(path)
    if path.is_dir() and any(path.glob("*-images-idx3-ubyte*")):
        return GreyImages(*_read_mnist(path, "train"), *_read_mnist(path, "t10k"), top=255)
    arrays, labels = _read_arrays(path), {}
    for name in list(arrays):
        if name.endswith("_labels") or name == "labels":
            labels[name] = torch.from_numpy(arrays.pop(name)).long()
    found = {
        part: next((name for name in names if name in arrays), None)
        for part, names in PARTS.items()
    }
    if all(found.values()):
        train, held_out = (_as_images(path, name, arrays[name]) for name in found.values() if name)
        train_labels, held_out_labels = (
            _as_labels(path, part, labels.get(f"{name}_labels"))
            for part, name in zip((train, held_out), found.values(), strict=True)
        )
    elif len(arrays) == 1:
        (name, array), *_ = arrays.items()
        images = _as_images(path, name, array)
        given = labels.get("labels", labels.get(f"{name}_labels"))
        parts = split(images, _as_labels(path, images, given), generator)
        train, train_labels, held_out, held_out_labels = parts
    else:
        raise DataError(
            f"{path}: expected arrays train and test, or one array of images; found "
            f"{', '.join(arrays) or 'none'}"
        )
    if train.shape[1:] != held_out.shape[1:]:
        raise DataError(
            f"{path}: training images are {list(train.shape[1:])}, the held-out ones "
            f"{list(held_out.shape[1:])}"
        )
    whole = not train.is_floating_point()
    top = max(int(train.max()), int(held_out.max()), 1) if whole else None
    return GreyImages(train, train_labels, held_out, held_out_labels, top)


def split(
    images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and their labels, then a random fifth held out and theirs."""
    order = torch.randperm(len(images), generator=generator)
    held_out, train = order.tensor_split([len(order) // 5])
    return images[train], labels[train], images[held_out], labels[held_out]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a file, or of the npy and npz files of a folder, by name."""
    if path.is_file():
        arrays = _read_file(path)
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".npy", ".npz"))
        arrays = {name: array for file in files for name, array in _read_file(file).items()}
    else:
        raise FileError(f"{path}: no such folder or file; name the folder with the images")
    if not arrays:
        raise FileError(
            f"{path}: neither MNIST's files (train-images-idx3-ubyte, …) nor npy or npz arrays are there"
        )
    return arrays


def _read_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        arrays = {k: tensor.numpy() for k, tensor in read_table(path).tensors.items()}
        if path.stem == "binarized_mnist_larochelle":
            return {k: np.unpackbits(v, axis=1)[:, :784] for k, v in arrays.items()}
        return arrays
    try:
        return {path.stem: np.load(path, allow_pickle=False)}
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not a npy file, or damaged: {error}") from error


def _as_images(path: Path, name: str, array: np.ndarray) -> Tensor:
    """[n, height, width]: rows of pixels are square images where they can be, else one line."""
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or not array.size:
        raise DataError(
            f"{path}, array {name!r}: expected numbers [n, height, width] or [n, pixels], got "
            f"{array.dtype} {list(array.shape)}; one grey channel only"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{path}, array {name!r}: some pixels are not finite numbers")
    whole = array.dtype.kind in "biu"
    small = array.dtype in (np.bool_, np.uint8)
    images = torch.from_numpy(array.astype((np.uint8 if small else np.int64) if whole else float))
    if whole and images.min() < 0:
        raise DataError(f"{path}, array {name!r}: counts must not be negative")
    if images.ndim == 3:
        return images
    side = math.isqrt(images.shape[1])
    return images.unflatten(1, (side, side) if side**2 == images.shape[1] else (1, -1))


def _as_labels(path: Path, images: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None:
        return torch.zeros(len(images), dtype=torch.long)
    if labels.shape != images.shape[:1]:
        raise DataError(f"{path}: {len(images)} images but labels of shape {list(labels.shape)}")
    return labels


def _read_mnist(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    images = _read_idx(folder, f"{name}-images-idx3-ubyte", num_dims=3)
    labels = _read_idx(folder, f"{name}-labels-idx1-ubyte", num_dims=1).long()
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} {name} images but {len(labels)} labels")
    return images, labels


def _read_idx(folder: Path, name: str, num_dims: int) -> Tensor:
    candidates = [folder / name, folder / f"{name}.gz"]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise FileError(f"{folder}: neither {name} nor {name}.gz is there; name the MNIST folder")
    values = torch.tensor(read_idx(path))
    if values.ndim != num_dims:
        raise DataError(f"{path}: expected {num_dims} dimensions, got {values.ndim}")
    return values
