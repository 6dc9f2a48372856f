"""The idx format of MNIST: two zero bytes, a type, the number of dimensions, the sizes, the values.

Reference: Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*. All numbers
are big-endian; sizes are unsigned 32-bit integers.
"""

import gzip
import math
import os
import struct
import zlib

import numpy as np

from vitools.data.files import existing_file
from vitools.errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an idx file, plain or gzipped, into an array of the shape and type its header states.

    MNIST's images become uint8 [60000, 28, 28], its labels uint8 [60000].

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    ...     read_idx(file)
    array([5, 0, 4], dtype=uint8)
    """
    path = existing_file(path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} is a damaged gzip file ({error}): download it again"
            ) from error

    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(
            f"{path} is not an idx file: it starts with {content[:4].hex(' ')!r}, expected "
            "two zero bytes, a type 08-0e and the number of dimensions"
        )
    dtype = np.dtype(_TYPES[content[2]]).newbyteorder(">")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(
            f"{path} ends inside its header: {len(content)} bytes, expected {header} "
            f"for {dimensions} dimensions; download it again"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = math.prod(shape) * dtype.itemsize
    got = len(content) - header
    if got != expected:
        state = "truncated" if got < expected else "longer than its header says"
        raise DataError(
            f"{path} is {state}: {got} bytes of values, expected {expected} for shape "
            f"{list(shape)}; download it again"
        )
    values = np.frombuffer(content, dtype=dtype, offset=header).reshape(shape)
    return values.astype(dtype.newbyteorder("="))
