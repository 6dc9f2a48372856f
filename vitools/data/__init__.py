"""One reader of tables, and the small data sets that ship; those are read without torch."""

from vitools.data.columns import column_names
from vitools.data.idx import read_idx
from vitools.data.shipped import Diabetes, Digits, load_diabetes, load_digits
from vitools.data.table import Table, read_table

__all__ = [
    "Diabetes",
    "Digits",
    "Table",
    "column_names",
    "load_diabetes",
    "load_digits",
    "read_idx",
    "read_table",
]
