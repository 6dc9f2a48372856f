"""Readers of data files, and the small data sets that ship; none of it needs torch."""

from vitools.data.arrays import load_arrays
from vitools.data.idx import read_idx
from vitools.data.shipped import Diabetes, Digits, load_diabetes, load_digits
from vitools.data.tables import read_table

__all__ = [
    "Diabetes",
    "Digits",
    "load_arrays",
    "load_diabetes",
    "load_digits",
    "read_idx",
    "read_table",
]
