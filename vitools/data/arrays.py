"""One entry for every data file: the ending decides who reads it."""

import os
from pathlib import Path

import numpy as np

from vitools.data.idx import read_idx
from vitools.data.tables import read_table
from vitools.errors import DataError

_TABLES = (".csv", ".npz", ".parquet")
_IDX = (".idx", "ubyte")  # MNIST's own names end in "-idx3-ubyte"


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a csv, npz, parquet or idx (also gzipped) file into ``{name: array}``.

    A table gives an array a column, an npz file its own arrays; an idx file, which has one array
    and no names, gives ``{"data": array}``.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    ...     load_arrays(file)
    {'data': array([5, 0, 4], dtype=uint8)}
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(_TABLES):
        return read_table(path)
    if name.removesuffix(".gz").endswith(_IDX):
        return {"data": read_idx(path)}
    raise DataError(
        f"{path}: cannot tell the format from this name; expected an ending {', '.join(_TABLES)}, "
        "or MNIST's idx (.idx, -ubyte, with or without .gz)"
    )
