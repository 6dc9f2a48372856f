"""Images for the VAE: the split, the two kinds of pixels, MNIST files from a folder."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from vitools.data import load_digits
from vitools.errors import DataError, FileError, OptionError
from vitools.models.vae import binarise, dequantise, load, quantise

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def generator():
    return torch.Generator().manual_seed(0)


def write_idx(path, values):
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder, suffix=""):
    random = np.random.default_rng(1)
    for name, size in (("train", 7), ("t10k", 3)):
        write_idx(
            folder / f"{name}-images-idx3-ubyte{suffix}", random.integers(256, size=(size, 4, 5))
        )
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", np.arange(size))


def test_embedded_digits_are_split_whole_with_their_labels():
    data = load(likelihood="gaussian", seed=2)
    assert data.shape == (8, 8)
    counts = torch.cat([data.train, data.held_out]).mul(17).floor().to(torch.uint8)
    labels = torch.cat([data.train_labels, data.held_out_labels])
    digits = load_digits()
    rows = np.column_stack([counts.numpy(), labels.numpy()])
    expected = np.column_stack([digits.images.reshape(-1, 64), digits.labels])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    assert len(data.held_out) == 359
    assert data.held_out_labels.unique().tolist() == list(range(10))


def test_load_follows_the_seed_and_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (load(seed=seed).train for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.unique().tolist() == [0.0, 1.0]


def test_binarised_pixels_have_the_grey_level_as_mean():
    counts = torch.arange(17).repeat(20_000, 1)
    probability = torch.arange(17) / 16
    mean = binarise(counts, 16, generator()).mean(0)
    standard_error = (probability * (1 - probability) / 20_000).sqrt()
    assert ((mean - probability).abs() <= 4 * standard_error).all()


def test_dequantised_pixels_are_uniform_within_their_count():
    counts = torch.arange(17).repeat(20_000, 1)
    pixels = dequantise(counts, 16, generator())
    assert torch.equal((pixels * 17).floor().long().clamp(max=16), counts)
    within = pixels.double() * 17 - counts
    standard_error = math.sqrt(1 / 12 / 20_000)
    assert ((within.mean(0) - 0.5).abs() < 4 * standard_error).all()
    assert ((within.square().mean(0) - 1 / 3).abs() < 4 * math.sqrt(4 / 45 / 20_000)).all()


def test_grey_levels_are_equal_classes_of_the_counts():
    levels = quantise(torch.arange(256), 255, num_levels=4) * 3
    assert torch.equal(levels.round().long(), torch.arange(4).repeat_interleave(64))
    assert quantise(torch.arange(17), 16, num_levels=17).mul(16).tolist() == list(range(17))
    assert load(likelihood="categorical", num_levels=3).train.unique().tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_from_a_folder(tmp_path, suffix):
    write_mnist(tmp_path, suffix)
    data = load(tmp_path, likelihood="gaussian")
    assert (data.train.shape, data.held_out.shape, data.shape) == ((7, 20), (3, 20), (4, 5))
    assert data.train_labels.tolist() == list(range(7))
    expected = np.random.default_rng(1).integers(256, size=(7, 4, 5)).reshape(7, 20)
    assert np.array_equal(np.floor(data.train.numpy() * 256), expected)


def test_arrays_of_a_folder_with_their_labels(tmp_path):
    random = np.random.default_rng(2)
    for name, size in (("train", 6), ("test", 4)):
        np.save(tmp_path / f"{name}.npy", random.integers(1, 8, size=(size, 3, 5)).astype(np.uint8))
        np.save(tmp_path / f"{name}_labels.npy", np.arange(size))
    data = load(tmp_path, likelihood="gaussian")
    assert (data.train.shape, data.held_out.shape, data.shape) == ((6, 15), (4, 15), (3, 5))
    assert data.held_out_labels.tolist() == [0, 1, 2, 3]
    expected = np.load(tmp_path / "test.npy").reshape(4, 15)
    assert np.array_equal(np.floor(data.held_out.numpy() * 8), expected)  # counts up to 7


def test_one_array_of_intensities_is_split_and_kept_as_it_is(tmp_path):
    images = np.random.default_rng(3).random((10, 9)).astype(np.float32)
    np.savez(tmp_path / "faces.npz", faces=images, labels=np.arange(10))
    data = load(tmp_path, likelihood="gaussian")
    assert (data.train.shape, data.held_out.shape, data.shape) == ((8, 9), (2, 9), (3, 3))
    rows = torch.cat([data.train, data.held_out])
    labels = torch.cat([data.train_labels, data.held_out_labels])
    assert np.array_equal(rows.numpy(), images[labels.numpy()])
    assert sorted(labels.tolist()) == list(range(10))
    assert torch.equal(load(tmp_path / "faces.npz", likelihood="gaussian").train, data.train)
    levels = load(tmp_path, likelihood="categorical", num_levels=2).train
    assert np.array_equal(levels.numpy(), images[data.train_labels.numpy()] >= 0.5)
    assert load(tmp_path).train.unique().tolist() == [0.0, 1.0]


def test_arrays_that_are_no_images_are_refused(tmp_path):
    refused = {
        "complex": (np.ones((3, 2), complex), "one grey channel"),
        "colour": (np.ones((3, 2, 2, 3)), "one grey channel"),
        "negative": (-np.ones((3, 2), int), "negative"),
        "infinite": (np.full((3, 2), np.inf), "finite"),
    }
    for name, (array, message) in refused.items():
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "train.npy", array)
        with pytest.raises(DataError, match=message):
            load(folder)
    folder = tmp_path / "two"
    folder.mkdir()
    np.savez(folder / "images.npz", first=np.ones((3, 4)), second=np.ones((3, 4)))
    with pytest.raises(DataError, match=r"expected arrays train and test.*first, second"):
        load(folder)
    np.savez(folder / "images.npz", train=np.ones((3, 4)), test=np.ones((3, 5)))
    with pytest.raises(DataError, match=r"training images are \[2, 2\].*\[1, 5\]"):
        load(folder)
    np.savez(folder / "images.npz", train=np.ones((3, 4)), test=np.ones((3, 4)), test_labels=[1])
    with pytest.raises(DataError, match="3 images but labels"):
        load(folder)
    (folder / "broken.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a npy file, or damaged"):
        load(folder)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="the MNIST files are not beside the repository")
def test_the_fixed_binarised_mnist():
    data = load(MNIST / "binarized_mnist_larochelle.npz")
    assert (data.train.shape, data.held_out.shape) == ((50_000, 784), (10_000, 784))
    assert data.shape == (28, 28)
    assert data.train.unique().tolist() == [0.0, 1.0]
    assert 0.12 < data.train.mean() < 0.14


@pytest.mark.skipif(not MNIST.is_dir(), reason="the MNIST files are not beside the repository")
def test_real_mnist():
    data = load(MNIST)
    assert (data.train.shape, data.held_out.shape) == ((60_000, 784), (10_000, 784))
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert 0.12 < data.train.mean() < 0.14  # the mean grey level is 0.1307


def test_refusals_name_the_file_or_option(tmp_path):
    with pytest.raises(OptionError, match=r"likelihood: .*'grey'"):
        load(likelihood="grey")
    with pytest.raises(FileError, match=r"neither MNIST's files .* nor npy or npz arrays"):
        load(tmp_path)
    with pytest.raises(FileError, match="no such folder or file"):
        load(tmp_path / "absent")
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").rename(tmp_path / "moved")
    with pytest.raises(FileError, match=r"neither t10k-images-idx3-ubyte nor .*\.gz"):
        load(tmp_path)
    (tmp_path / "moved").rename(tmp_path / "t10k-images-idx3-ubyte")
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(6))
    with pytest.raises(DataError, match="7 train images but 6 labels"):
        load(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.arange(6))
    with pytest.raises(DataError, match="expected 3 dimensions, got 1"):
        load(tmp_path)
    with pytest.raises(DataError, match="pixels 0 to 16, got 0 to 17"):
        binarise(torch.tensor([0, 17]), 16, generator())
    with pytest.raises(OptionError, match="num_levels: expected at least 2, got 1"):
        load(likelihood="categorical", num_levels=1)
