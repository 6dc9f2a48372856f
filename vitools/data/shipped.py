"""The small real data sets that ship with the package; SOURCES.md says where they come from."""

from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np

from vitools.data.columns import read_columns


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: ``images`` uint8 [1797, 8, 8], grey levels 0-16, ``labels`` [1797]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Diabetes:
    """Diabetes patients, in the units they were measured in.

    ``features`` float64 [442, 10], ``progression`` float64 [442]: the disease one year later.

    Attributes:
        feature_names: of the columns of ``features``.
    """

    features: np.ndarray
    progression: np.ndarray
    feature_names: tuple[str, ...]


def load_digits() -> Digits:
    """1797 handwritten digits of 8 × 8 pixels (Alpaydin & Kaynak 1998, UCI; CC BY 4.0).

    >>> digits = load_digits()
    >>> digits.images.shape, int(digits.images.max()), int(digits.labels[0])
    ((1797, 8, 8), 16, 0)
    """
    table = _shipped_table("digits.npz")
    return Digits(images=table["images"], labels=table["labels"])


def load_diabetes() -> Diabetes:
    """442 patients, 10 measurements each, and their progression (Efron et al. 2004), unscaled.

    >>> diabetes = load_diabetes()
    >>> diabetes.features.shape, diabetes.feature_names[:4]
    ((442, 10), ('age', 'sex', 'bmi', 'bp'))
    """
    table = _shipped_table("diabetes.csv")
    progression = table.pop("progression")
    return Diabetes(
        features=np.column_stack(list(table.values())).astype(np.float64),
        progression=progression.astype(np.float64),
        feature_names=tuple(table),
    )


def load_nile() -> tuple[np.ndarray, np.ndarray]:
    """Years 1871 to 1970 [100], and the annual flow of the Nile at Aswan in 10⁸ m³ [100] (Cobb 1978).

    >>> years, flow = load_nile()
    >>> int(years[27]), float(flow[27]), float(flow[28])
    (1898, 1100.0, 774.0)
    """
    table = _shipped_table("nile.csv")
    return table["year"], table["flow"].astype(np.float64)


def _shipped_table(name: str) -> dict[str, np.ndarray]:
    with as_file(files("vitools.data").joinpath(name)) as path:
        return {k: column.values for k, column in read_columns(path).items()}
