"""One reader of tables, in memory or mapped, and the small data sets that ship; those are read without torch."""

from vitools.data.columns import column_names
from vitools.data.idx import read_idx
from vitools.data.open_table import MappedTable, open_table
from vitools.data.shipped import Diabetes, Digits, load_diabetes, load_digits, load_nile
from vitools.data.table import Table, read_table

__all__ = [
    "Diabetes",
    "Digits",
    "MappedTable",
    "Table",
    "column_names",
    "load_diabetes",
    "load_digits",
    "load_nile",
    "open_table",
    "read_idx",
    "read_table",
]
