"""The table readers: what they read, and that each refusal names the file, the line, the column."""

import sys

import numpy as np
import pytest

from vitools.data import load_arrays, read_table
from vitools.errors import DataError, FileError, NotSupportedError


@pytest.fixture
def csv_file(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "heights.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "age,height\n3,95\n4,102.5\n",
        "age;height\n3;95\n4;102.5\n",
        "age\theight\r\n3\t95\r\n4\t102.5",
        '\ufeff"age", height \n 3 ,"95"\n\n4,1.025e2\n\n',
    ],
    ids=["commas", "semicolons", "tabs", "byte-order mark, quotes, spaces, blank lines"],
)
def test_csv_is_read_by_column(csv_file, text):
    table = read_table(csv_file(text))
    assert list(table) == ["age", "height"]
    np.testing.assert_array_equal(table["age"], [3.0, 4.0])
    np.testing.assert_array_equal(table["height"], [95.0, 102.5])
    assert table["height"].dtype == np.float64
    table["height"][0] = 1.0  # the arrays are the reader's to give away


def test_csv_keeps_every_digit(csv_file):
    values = np.random.default_rng(0).normal(size=50)
    text = "x\n" + "\n".join(repr(float(v)) for v in values)
    np.testing.assert_array_equal(read_table(csv_file(text))["x"], values)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("age,height\n3,tall\n", ["line 2", "'height'", "'tall'", "recode"]),
        ("age,height\n3,1_000\n", ["line 2", "'height'", "'1_000'"]),
        ("age;height\n3;1,5\n", ["line 2", "'height'", "'1,5'", "decimal point"]),
        ("age,height\n\n3,95\n4,\n", ["line 4", "'height'", "blank"]),
        ("age\n3\n\n5\n", ["line 3", "'age'", "blank"]),
        ("age,height\n3,nan\n", ["line 2", "'height'", "nan is not finite"]),
        ("age,height\n1,2\n-inf,3\n", ["line 3", "'age'", "-inf is not finite"]),
        ("age,height\n3,95,7\n", ["line 2", "3 cells", "expected 2", "age, height"]),
        ("age,height\n3,95\n4\n", ["line 3", "1 cells", "expected 2"]),
        ("age,age\n3,95\n", ["line 1", "'age'", "twice"]),
        ("age,\n3,95\n", ["line 1", "column 2", "no name"]),
        ("1,2\n3,4\n", ["line 1", "names", "got numbers"]),
        ("\n3,4\n", ["line 1", "names", "blank line"]),
        ("\ufeff", ["line 1", "names"]),
        ("age,height\n", ["no rows"]),
        ('age,height\n"3,95\n', ["line 2", "not valid csv"]),
    ],
)
def test_csv_refusals_name_the_place(csv_file, text, parts):
    path = csv_file(text)
    with pytest.raises(DataError) as caught:
        read_table(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_csv_refuses_another_encoding(csv_file):
    path = csv_file("größe\n3\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"heights\.csv is not UTF-8"):
        read_table(path)


def test_missing_file_suggests_the_nearest_name(csv_file, tmp_path):
    csv_file("age\n1\n")
    with pytest.raises(FileError, match=r"hieghts\.csv does not .* did you mean .*heights\.csv"):
        read_table(tmp_path / "hieghts.csv")
    with pytest.raises(FileError, match=r"zzz\.npz does not exist; check the name"):
        read_table(tmp_path / "zzz.npz")
    with pytest.raises(FileError, match=r"there is no folder .*nowhere"):
        read_table(tmp_path / "nowhere" / "heights.csv")


def test_empty_file_and_folder_are_refused(tmp_path):
    (tmp_path / "empty.csv").touch()
    with pytest.raises(FileError, match=r"empty\.csv is empty"):
        read_table(tmp_path / "empty.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(FileError, match=r"folder\.csv is a folder"):
        read_table(tmp_path / "folder.csv")


@pytest.mark.parametrize("reader", [read_table, load_arrays])
def test_unknown_ending_is_refused(reader, tmp_path):
    with pytest.raises(DataError, match=r"data\.xlsx.*\.csv.*\.npz"):
        reader(tmp_path / "data.xlsx")


def test_npz_keeps_shapes_and_types(tmp_path):
    arrays = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "labels": np.array([True, False]),
        "scale": np.array(2.5),
    }
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    read = load_arrays(tmp_path / "set.npz")
    assert list(read) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name], values)
        assert read[name].dtype == values.dtype


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (np.array([{"a": 1}, None], dtype=object), ["Python objects", "never unpickled"]),
        (np.array(["red", "blue"]), ["expected numbers", "recode"]),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), ["expected numbers", "datetime64"]),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), ["not a finite number at [1, 1]"]),
    ],
    ids=["objects", "words", "dates", "nan"],
)
def test_npz_refuses_what_is_not_numbers(tmp_path, values, parts):
    np.savez(tmp_path / "set.npz", good=np.ones(2), colour=values)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "set.npz")
    for part in ["set.npz", "'colour'", *parts]:
        assert part in str(caught.value)


def test_npz_refuses_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"not a zip archive at all")
    with pytest.raises(DataError, match="not an npz archive"):
        read_table(path)

    with path.open("wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(DataError, match="single array"):
        read_table(path)

    np.savez(path)
    with pytest.raises(DataError, match="holds no arrays"):
        read_table(path)

    values = np.random.default_rng(0).normal(size=1000)
    np.savez_compressed(path, values=values)
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="'values': damaged"):
        read_table(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(NotSupportedError, match=r"pip install 'vitools\[data\]'"):
        read_table(path)


def test_parquet_with_pyarrow(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"

    def write(**columns):
        parquet.write_table(pyarrow.table(columns), path)

    write(age=[3, 4], height=[95.0, 102.5])
    table = read_table(path)
    np.testing.assert_array_equal(table["age"], [3, 4])
    np.testing.assert_array_equal(table["height"], [95.0, 102.5])

    write(age=[3, None])
    with pytest.raises(DataError, match=r"table\.parquet, row 1, column 'age': missing"):
        read_table(path)
    write(age=["three"])
    with pytest.raises(DataError, match="'age': expected numbers"):
        read_table(path)
    write(age=[float("nan")])
    with pytest.raises(DataError, match=r"'age': not a finite number at \[0\]"):
        read_table(path)
    write(age=pyarrow.array([], pyarrow.float64()))
    with pytest.raises(DataError, match="no rows"):
        read_table(path)
    path.write_bytes(b"PAR1 damaged")
    with pytest.raises(DataError, match="not a parquet file"):
        read_table(path)
