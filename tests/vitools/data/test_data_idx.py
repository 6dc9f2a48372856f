"""The idx reader against files written byte by byte, and against MNIST where it is at hand."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from vitools.data import read_idx
from vitools.errors import DataError, FileError

MNIST = Path(__file__).parents[4] / "shared" / "data" / "mnist"
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(values, kind):
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, CODES[kind], values.ndim]) + sizes + values.astype(f">{kind}").tobytes()


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 3)])
def test_every_type_and_shape(tmp_path, kind, compress, shape):
    values = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(compress(idx_bytes(values, kind)))
    read = read_idx(path)
    np.testing.assert_array_equal(read, values)
    assert read.dtype == np.dtype(kind)
    assert read.dtype.isnative
    assert read.flags.writeable


GOOD = idx_bytes(np.arange(6).reshape(2, 3), "u1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG" + GOOD, "not an idx file: it starts with '89 50 4e 47'"),
        (b"\0\0\x07\x01", "not an idx file"),
        (b"\0\0\x08", "not an idx file"),
        (GOOD[:9], "ends inside its header: 9 bytes, expected 12 for 2 dimensions"),
        (GOOD[:-1], r"truncated: 5 bytes of values, expected 6 for shape \[2, 3\]"),
        (GOOD + b"\0", "longer than its header says: 7 bytes of values, expected 6"),
        (gzip.compress(GOOD)[:-9], "damaged gzip"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"\0", "truncated: 1 bytes of values"),
    ],
    ids=["magic", "type", "short", "header", "truncated", "longer", "gzip", "huge"],
)
def test_refusals(tmp_path, content, message):
    path = tmp_path / "digits-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"digits-ubyte.*{message}"):
        read_idx(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        read_idx(tmp_path / "digits-ubyte")


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not at hand")
def test_mnist_test_set():
    images = read_idx(MNIST / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(MNIST / "t10k-labels-idx1-ubyte.gz")
    assert images.shape == (10_000, 28, 28)
    assert images.max() == 255
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]  # the set's well-known beginning
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
