"""The table reader: what it reads, and that each refusal names the file, the line, the column."""

import sys
from decimal import Decimal

import numpy as np
import pytest
import torch

from vitools.data import column_names, read_table
from vitools.data.cells import Kind, Seen, values_of
from vitools.errors import DataError, FileError, NotSupportedError, OptionError


@pytest.fixture
def csv_file(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "heights.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def tensors(path, *more, **options):
    return read_table(path, *more, **options).tensors


# ---- separators, quotes, marks ---------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "age,height\n3,95\n4,102.5\n",
        "age;height\n3;95\n4;102.5\n",
        "age\theight\r\n3\t95\r\n4\t102.5",
        '\ufeff"age", height \n 3 ,"95"\n\n4,1.025e2\n\n',
        "age;height\n3;95\n4;102,5\n",
        'age,height\n3,95\n4,"102,5"\n',
        'age,"height"\n3,95\n4,+102.50\n',
    ],
    ids=[
        "commas",
        "semicolons",
        "tabs",
        "byte-order mark, quotes, spaces, blank lines",
        "decimal comma",
        "decimal comma in quotes",
        "signs",
    ],
)
def test_csv_is_read_by_column(csv_file, text):
    table = tensors(csv_file(text))
    assert list(table) == ["age", "height"]
    assert table["age"].dtype == torch.int64
    assert table["age"].tolist() == [3, 4]
    assert table["height"].dtype == torch.float64
    assert table["height"].tolist() == [95.0, 102.5]
    table["height"][0] = 1.0  # the tensors are the reader's to give away


def test_a_tsv_file_and_a_quoted_name_with_separators_in_it(tmp_path, csv_file):
    path = tmp_path / "heights.tsv"
    path.write_text("age\theight\n3\t1,5\n")
    assert tensors(path)["height"].tolist() == [1.5]
    path = csv_file('"height, in cm, or so";age\n95;3\n')
    assert column_names(path) == ["height, in cm, or so", "age"]
    assert tensors(path, {"y": "height, in cm, or so"})["y"].tolist() == [95]


def test_csv_keeps_every_digit(csv_file):
    values = np.random.default_rng(0).normal(size=50)
    text = "x\n" + "\n".join(repr(float(v)) for v in values)
    np.testing.assert_array_equal(tensors(csv_file(text))["x"], values)
    large = [2**62 + 1, -(2**63), 2**63 - 1]
    assert tensors(csv_file("n\n" + "\n".join(map(str, large))))["n"].tolist() == large


# ---- types -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "dtype", "expected"),
    [
        (["1", "2"], torch.int64, [1, 2]),
        (["-1", "+2"], torch.int64, [-1, 2]),
        (["1", "2.5"], torch.float64, [1.0, 2.5]),
        (["1e3", ".5"], torch.float64, [1000.0, 0.5]),
        (["1.", "-.5E-1"], torch.float64, [1.0, -0.05]),
        (["0,125", "2"], torch.float64, [0.125, 2.0]),
        (["1,125", "2,5"], torch.float64, [1.125, 2.5]),
        (["1,5", "1e1", "-2E-1"], torch.float64, [1.5, 10.0, -0.2]),
        (["1,5", "18446744073709551616"], torch.float64, [1.5, 2.0**64]),
        (["true", "FALSE"], torch.bool, [True, False]),
        (["yes", "no"], torch.int64, [0, 1]),  # each row its own label: in the order of the rows
        (["18446744073709551616", "1"], torch.float64, [2.0**64, 1.0]),
    ],
)
def test_the_type_of_a_column_is_what_its_cells_agree_on(csv_file, cells, dtype, expected):
    x = tensors(csv_file("x;y\n" + "".join(f"{cell};0\n" for cell in cells)))["x"]
    assert x.dtype == dtype
    assert x.tolist() == expected


def test_words_become_codes_with_their_labels(csv_file):
    table = read_table(csv_file("tree,n\noak,1\nash,2\noak,3\n"))
    assert table.tensors["tree"].tolist() == [1, 0, 1]
    assert table.labels == {"tree": ("ash", "oak")}
    distinct = read_table(csv_file("tree\noak\nash\n"))
    assert distinct.labels["tree"] == ("oak", "ash")  # label i is row i's


def test_the_kind_of_a_column_adds_up_over_pieces_of_it():
    seen = Seen()
    for start, cells in enumerate((["1", "2"], ["3"], ["4.5", "6"])):
        seen.add(cells, [f"line {start}"] * len(cells))
    assert seen.kind("a.csv", "x") is Kind.REALS
    assert values_of(["1", "2"], Kind.REALS).dtype == np.float64
    seen.add(["oak"], ["line 9"])
    with pytest.raises(DataError, match=r"line 9, column 'x': expected a number .* got 'oak'"):
        seen.kind("a.csv", "x")
    assert Seen().kind("a.csv", "x") is Kind.NOTHING


# ---- which columns ---------------------------------------------------------------------


def test_only_the_columns_asked_for_are_looked_at(csv_file):
    path = csv_file("when,y,blank,,x,x,note\n2020-01-02,1,,7,1,2,a\n,2,,,3,4,5\n")
    assert column_names(path) == ["when", "y", "blank", "x", "note"]
    table = read_table(path, {"target": "y"})
    assert table.tensors["target"].tolist() == [1, 2]
    assert list(table.tensors) == ["target"]
    with pytest.raises(DataError, match="column name 'x' appears twice"):
        read_table(path, {"x": "x"})
    with pytest.raises(DataError, match=r"no column 'Y' \(columns: when, y, .*Did you mean 'y'\?"):
        read_table(path, {"x": "Y"})


def test_several_columns_of_one_argument_stand_side_by_side(csv_file):
    path = csv_file("a,b,c\n1,2.5,oak\n3,4.5,ash\n")
    assert tensors(path, {"x": ["b", "a"]})["x"].tolist() == [[2.5, 1], [4.5, 3]]
    assert tensors(path, {"x": ["a", "a"]})["x"].dtype == torch.int64
    with pytest.raises(DataError, match="column 'c': words, which cannot stand beside"):
        read_table(path, {"x": ["a", "c"]})


@pytest.mark.parametrize("columns", [{}, "a", ["a"], {"x": 3}, {"x": []}, {"x": [None]}])
def test_columns_must_be_names(csv_file, columns):
    with pytest.raises((OptionError, DataError), match=r"columns: expected|columns"):
        read_table(csv_file("a\n1\n"), columns)


# ---- missing values --------------------------------------------------------------------

GAPS = "x,y,tree\n1,2.5,oak\n,3.5,ash\n3,NA,oak\n4,5.5,\n5,6.5,elm\n"


def test_missing_values_are_refused_with_their_count(csv_file):
    with pytest.raises(DataError, match=r"line 3, column 'x': missing .* in all x 1, y 1, tree 1"):
        read_table(csv_file(GAPS))
    with pytest.raises(OptionError, match="expected one of refuse, drop, mask, got 'skip'"):
        read_table(csv_file(GAPS), missing="skip")
    assert tensors(csv_file(GAPS.replace("\n,", "\n2,")), {"x": "x"})["x"].tolist() == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_rows_with_missing_values_can_be_dropped(csv_file):
    table = read_table(csv_file(GAPS), missing="drop")
    assert {name: value.tolist() for name, value in table.tensors.items()} == {
        "x": [1, 5],
        "y": [2.5, 6.5],
        "tree": [0, 1],
    }
    assert table.tensors["x"].dtype == torch.int64
    assert table.labels == {"tree": ("oak", "elm")}  # of the rows that are left
    assert (table.missing, table.dropped) == ({"x": 1, "y": 1, "tree": 1}, 3)
    with pytest.raises(DataError, match="every row lacks a value"):
        read_table(csv_file("x,y\n1,\n,2\n"), missing="drop")


def test_missing_values_can_be_masked(csv_file):
    table = read_table(csv_file(GAPS), {"x": "x", "both": ("x", "y")}, missing="mask")
    assert table.masks["x"].tolist() == [True, False, True, True, True]
    assert table.masks["both"].tolist()[1:3] == [[False, True], [True, False]]
    assert table.tensors["x"].tolist() == [1, 1, 3, 4, 5]  # the column's first value stands in
    assert table.missing == {"x": 1, "both": 2}
    with pytest.raises(DataError, match="column 'y': blank throughout"):
        read_table(csv_file("x,y\n1,\n2,\n"), missing="mask")


# ---- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("age,height\n1,2\n3,tall\n", ["line 3", "'height'", "'tall'", "other rows"]),
        ("age,height\n1,2\n3,true\n", ["line 3", "'height'", "'true'"]),
        ("age,height\n3,1_000\n", ["line 2", "'height'", "'1_000'", "decimal point"]),
        ("age,height\n3,5 %\n", ["line 2", "'height'", "'5 %'"]),
        ("age,height\n3,$5\n", ["line 2", "'height'", "'$5'"]),
        ("age;height\n3;1.234,5\n", ["line 2", "'height'", "'1.234,5'"]),
        ("age;height\n3;1,5\n4;1.5\n", ["line 2", "'height'", "'1,5'", "decimal comma"]),
        ("age;height\n3;1,500\n4;2,300\n", ["line 2", "'height'", "'1,500'", "thousands"]),
        ("age,height\n3,2020-01-02\n", ["line 2", "'height'", "a date or a time", "days since"]),
        ("age,height\n3,2.1.2020\n", ["line 2", "'height'", "a date"]),
        ("age,height\n3,2020-01-02T10:00:00Z\n", ["line 2", "'height'", "a date"]),
        ("age,height\n3,10:30\n", ["line 2", "'height'", "a date or a time"]),
        ("age,height\n\n3,95\n4,\n", ["line 4", "'height'", "missing"]),
        ("age\n3\n\n5\n", ["line 3", "'age'", "missing"]),
        ("age,height\n3,nan\n", ["line 2", "'height'", "missing"]),
        ("age,height\n1,2\n-inf,3\n", ["line 3", "'age'", "'-inf' is not finite"]),
        ("age,height\n1.5,2\n1.5e999,3\n", ["line 3", "'age'", "'1.5e999' is not finite"]),
        (f"age,height\n1,2\n{'9' * 5000},3\n", ["line 3", "'age'", "is not finite"]),
        ("age,height\n3,95,7\n", ["line 2", "3 cells", "expected 2", "age, height"]),
        ("age,height\n3,95\n4\n", ["line 3", "1 cells", "expected 2"]),
        ("age,age\n3,95\n", ["'age'", "twice"]),
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
    with pytest.raises(DataError, match=r"heights\.csv is not UTF-8 text \(latin-1, perhaps"):
        read_table(csv_file("größe\n3\n", encoding="latin-1"))
    with pytest.raises(DataError, match=r"heights\.csv is not UTF-8 text \(UTF-16"):
        read_table(csv_file("größe\n3\n", encoding="utf-16"))


def test_missing_file_suggests_the_nearest_name(csv_file, tmp_path):
    csv_file("age\n1\n")
    with pytest.raises(
        FileError,
        match=r"hieghts\.csv does not .* did you mean .*heights\.csv",  # codespell:ignore hieghts
    ):
        read_table(tmp_path / "hieghts.csv")  # codespell:ignore hieghts
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


def test_unknown_ending_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.xlsx.*\.csv.*\.npz"):
        read_table(tmp_path / "data.xlsx")


# ---- npz -------------------------------------------------------------------------------


def test_npz_keeps_shapes_and_types(tmp_path):
    arrays = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "labels": np.array([True, False]),
        "scale": np.array(2.5),
        "swapped": np.ones(3, ">f4"),
    }
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    read = tensors(tmp_path / "set.npz")
    assert list(read) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name], values)
        assert read[name].numpy().dtype == values.dtype.newbyteorder("=")


def test_npz_words_and_gaps(tmp_path):
    path = tmp_path / "set.npz"
    x = np.array([[1.0, np.nan], [3.0, 4.0]])
    np.savez(path, tree=np.array(["oak", "ash"]), x=x, other=np.ones(3))
    table = read_table(path, {"x": "x", "tree": "tree"}, missing="drop")
    assert table.tensors["x"].tolist() == [[3.0, 4.0]]
    assert table.labels == {"tree": ("ash",)}
    masked = read_table(path, {"x": "x"}, missing="mask")
    assert masked.masks["x"].tolist() == [[True, False], [True, True]]
    with pytest.raises(DataError, match=r"arrays of different lengths \(x \[2\], other \[3\]\)"):
        read_table(path, {"x": "x", "other": "other"}, missing="drop")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (np.array([{"a": 1}, None], dtype=object), ["Python objects", "never unpickled"]),
        (np.array([1j]), ["expected numbers", "complex"]),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), ["dates", "datetime64"]),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), ["[1, 1]", "missing"]),
        (np.array([[0.0, 1.0], [2.0, np.inf]]), ["not a finite number at [1, 1]"]),
        (np.array([]), ["no values"]),
    ],
    ids=["objects", "complex", "dates", "nan", "infinity", "nothing"],
)
def test_npz_refuses_what_is_not_numbers_or_words(tmp_path, values, parts):
    np.savez(tmp_path / "set.npz", good=np.ones(2), colour=values)
    assert tensors(tmp_path / "set.npz", {"good": "good"})["good"].tolist() == [1, 1]
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


# ---- parquet ---------------------------------------------------------------------------


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(NotSupportedError, match=r"pip install 'vitools\[data\]'"):
        read_table(path)


@pytest.fixture
def parquet_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "table.parquet")
        return tmp_path / "table.parquet"

    return write


def test_parquet_keeps_types(parquet_file):
    pyarrow = pytest.importorskip("pyarrow")
    path = parquet_file(
        age=[3, 4],
        height=[95.0, 102.5],
        flag=[True, False],
        tree=["oak", "ash"],
        kind=pyarrow.array(["b", "b"]).dictionary_encode(),
        price=pyarrow.array([Decimal("1.25"), Decimal("2.50")]),
    )
    table = read_table(path)
    assert {name: str(value.dtype) for name, value in table.tensors.items()} == {
        "age": "torch.int64",
        "height": "torch.float64",
        "flag": "torch.bool",
        "tree": "torch.int64",
        "kind": "torch.int64",
        "price": "torch.float64",
    }
    assert table.labels == {"tree": ("oak", "ash"), "kind": ("b",)}
    assert table.tensors["height"].tolist() == [95.0, 102.5]


def test_parquet_gaps_and_refusals(parquet_file):
    pyarrow = pytest.importorskip("pyarrow")
    path = parquet_file(age=[3, None, 5], height=[1.0, 2.0, float("nan")])
    with pytest.raises(DataError, match=r"row 1 \(counting from 0\), column 'age': missing"):
        read_table(path)
    dropped = tensors(path, missing="drop")["age"]
    assert dropped.dtype == torch.int64
    assert dropped.tolist() == [3]
    path = parquet_file(when=pyarrow.array([0]).cast(pyarrow.timestamp("s")), y=[1])
    assert tensors(path, {"y": "y"})["y"].tolist() == [1]
    with pytest.raises(DataError, match="'when': dates"):
        read_table(path)
    with pytest.raises(DataError, match="'lists': expected numbers or words"):
        read_table(parquet_file(lists=[[1], [2, 3]]))
    with pytest.raises(DataError, match="no rows"):
        read_table(parquet_file(age=pyarrow.array([], pyarrow.float64())))
    path.write_bytes(b"PAR1 damaged")
    with pytest.raises(DataError, match="not a parquet file"):
        read_table(path)
