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
from vitools.models.vae import binarise, dequantise, load

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


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_from_a_folder(tmp_path, suffix):
    write_mnist(tmp_path, suffix)
    data = load(tmp_path, likelihood="gaussian")
    assert (data.train.shape, data.held_out.shape, data.shape) == ((7, 20), (3, 20), (4, 5))
    assert data.train_labels.tolist() == list(range(7))
    expected = np.random.default_rng(1).integers(256, size=(7, 4, 5)).reshape(7, 20)
    assert np.array_equal(np.floor(data.train.numpy() * 256), expected)


@pytest.mark.skipif(not MNIST.is_dir(), reason="the MNIST files are not beside the repository")
def test_real_mnist():
    data = load(MNIST)
    assert (data.train.shape, data.held_out.shape) == ((60_000, 784), (10_000, 784))
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert 0.12 < data.train.mean() < 0.14  # the mean grey level is 0.1307


def test_refusals_name_the_file_or_option(tmp_path):
    with pytest.raises(OptionError, match=r"likelihood: .*'grey'"):
        load(likelihood="grey")
    with pytest.raises(FileError, match=r"neither train-images-idx3-ubyte nor .*\.gz"):
        load(tmp_path)
    write_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(6))
    with pytest.raises(DataError, match="7 train images but 6 labels"):
        load(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.arange(6))
    with pytest.raises(DataError, match="expected 3 dimensions, got 1"):
        load(tmp_path)
    with pytest.raises(DataError, match="pixels 0 to 16, got 0 to 17"):
        binarise(torch.tensor([0, 17]), 16, generator())
