"""Tables larger than memory: what many files become, and that what is malformed is named by file and row."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vitools.data import open_table, read_table
from vitools.data.conversion import META
from vitools.errors import DataError, FileError, OptionError


@pytest.fixture
def parts(tmp_path):
    """Writes csv files that follow one another, and gives their pattern."""

    def write(*texts):
        for i, text in enumerate(texts):
            (tmp_path / f"part-{i}.csv").write_text(text, "utf-8")
        return str(tmp_path / "part-*.csv")

    return write


def test_files_follow_one_another_in_the_types_of_all_rows(parts):
    pattern = parts("kind,n,y\noak,1,2\nash,2,3\n", "kind,n,y\nfir,3,0.5\n\noak,4,1\n")
    table = open_table(pattern, {"kind": "kind", "n": "n", "y": "y", "x": ["n", "y"]})
    assert table.tensors["n"].dtype == torch.int64
    assert table.tensors["n"].tolist() == [1, 2, 3, 4]
    assert table.tensors["y"].tolist() == [2.0, 3.0, 0.5, 1.0]  # whole numbers, then a fraction
    assert table.tensors["kind"].tolist() == [2, 0, 1, 2]
    assert table.labels == {"kind": ("ash", "fir", "oak")}
    assert table.tensors["x"].tolist() == [[1, 2], [2, 3], [3, 0.5], [4, 1]]
    assert table.place(3).endswith("part-1.csv, row 1 (counting from 0)")


@pytest.mark.parametrize("ending", ["csv", "npz", "npy", "parquet", "feather"])
@pytest.mark.parametrize("cells", [2**18, 7])
def test_one_file_of_any_kind_is_what_read_table_reads(tmp_path, monkeypatch, ending, cells):
    monkeypatch.setattr("vitools.data.survey.CELLS", cells)
    generator = np.random.default_rng(0)
    y, n = generator.normal(size=23), np.arange(23) - 5
    path = tmp_path / f"rows.{ending}"
    if ending == "csv":
        rows = "".join(f"{float(a)!r},{b},w{b % 3}\n" for a, b in zip(y, n, strict=True))
        path.write_text("y,n,w\n" + rows)
    elif ending == "npz":
        np.savez_compressed(
            path, y=y, n=n, image=generator.normal(size=(23, 2, 3)), s=np.float32(y)
        )
    elif ending == "npy":
        np.save(path, generator.normal(size=(23, 4)))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"y": y, "n": n, "w": [f"w{i % 3}" for i in n]})
        if ending == "parquet":
            __import__("pyarrow.parquet").parquet.write_table(table, path, row_group_size=5)
        else:
            __import__("pyarrow.feather").feather.write_feather(table, path)
    mapped, whole = open_table(path), read_table(path)
    assert mapped.tensors.keys() == whole.tensors.keys()
    for name, tensor in whole.tensors.items():
        assert mapped.tensors[name].dtype == tensor.dtype
        assert torch.equal(mapped.tensors[name], tensor)
    assert mapped.labels == whole.labels


def test_missing_values_as_read_table_has_them(parts):
    texts = "k,y\na,1\n,2\n", "k,y\nb,NA\na,4\nb,5\n"
    pattern = parts(*texts)
    with pytest.raises(DataError, match=r"part-0\.csv, line 3, column 'k': missing.*k 1, y 1"):
        open_table(pattern)
    dropped = open_table(pattern, missing="drop")
    assert dropped.dropped == 2
    assert dropped.tensors["y"].tolist() == [1.0, 4.0, 5.0]
    assert dropped.tensors["k"].tolist() == [0, 0, 1]
    assert [dropped.place(i)[-35:] for i in range(3)] == [
        "/part-0.csv, row 0 (counting from 0)"[-35:],
        "/part-1.csv, row 1 (counting from 0)"[-35:],
        "/part-1.csv, row 2 (counting from 0)"[-35:],
    ]
    masked = open_table(pattern, missing="mask")
    assert masked.tensors["y"].tolist() == [1.0, 2.0, 1.0, 4.0, 5.0]
    assert masked.masks["y"].tolist() == [True, True, False, True, True]
    assert masked.masks["k"].tolist() == [True, False, True, True, True]
    assert masked.missing == {"k": 1, "y": 1}


def test_ranks_have_all_rows_between_them_and_one_set_of_labels(parts):
    pattern = parts("k\nb\na\n", "k\nc\nb\na\n")
    shares = [open_table(pattern, rank=rank, num_ranks=3) for rank in range(3)]
    assert [code for share in shares for code in share.tensors["k"].tolist()] == [1, 0, 2, 1, 0]
    assert {share.labels["k"] for share in shares} == {("a", "b", "c")}
    assert shares[2].place(0).endswith("part-1.csv, row 1 (counting from 0)")
    with pytest.raises(OptionError, match=r"rank: expected one from 0 to 2"):
        open_table(pattern, rank=3, num_ranks=3)
    with pytest.raises(OptionError, match="5 rows are too few for 9 parts"):
        open_table(pattern, rank=0, num_ranks=9)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("k,y\nb,x\n", r"part-1\.csv, line 2, column 'y': words from here on, numbers in .*part-0"),
        ("k,y\n3,2\n", r"part-1\.csv, line 2, column 'k': numbers from here on, words in .*part-0"),
        ("k,y\nb,1\nb,2020-01-02\n", r"part-1\.csv, line 3, column 'y': '2020-01-02' is a date"),
        ("k,y\nb,inf\n", r"part-1\.csv, line 2, column 'y': 'inf' is not finite"),
        ("k,y\nb,1\nb\n", r"part-1\.csv, line 3: 1 cells, expected 2"),
        ("k,z\nb,1\n", r"part-1\.csv has no column 'y'"),
        ('k,y\n"b,1\n', r"part-1\.csv, line 2: not valid csv"),
    ],
)
def test_what_is_malformed_is_named_by_file_and_row(tmp_path, parts, second, words):
    pattern = parts("k,y\na,1\nb,2\n", second)
    with pytest.raises(DataError, match=words):
        open_table(pattern)
    assert not (tmp_path / ".vitools-cache").exists()


def test_a_parquet_file_cut_short_or_of_another_type_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = __import__("pyarrow.parquet").parquet
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    parquet.write_table(pyarrow.table({"y": np.arange(1000.0)}), first)
    parquet.write_table(pyarrow.table({"y": ["one", "two"]}), second)
    with pytest.raises(DataError, match=r"b\.parquet, row 0 .*'y': words from here on, numbers in"):
        open_table(tmp_path / "*.parquet")
    second.write_bytes(first.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"b\.parquet is not a parquet file, or damaged"):
        open_table(tmp_path / "*.parquet")
    parquet.write_table(pyarrow.table({"y": [1.0, None]}), second)
    with pytest.raises(
        DataError, match=r"b\.parquet, row 1 \(counting from 0\), column 'y': missing"
    ):
        open_table(tmp_path / "*.parquet")
    damaged = bytearray(first.read_bytes())
    damaged[100:3000] = bytes(2900)  # its footer is whole
    second.write_bytes(damaged)
    with pytest.raises(DataError, match=r"b\.parquet is not a parquet file, or damaged"):
        open_table(tmp_path / "*.parquet")


def test_an_archive_cut_short_and_arrays_without_common_rows(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=np.ones(3))
    with pytest.raises(DataError, match=r"x \[4, 2\], y \[3\]"):
        open_table(tmp_path / "a.npz")
    assert open_table(tmp_path / "a.npz", {"x": "x"}).tensors["x"].shape == (4, 2)
    np.save(tmp_path / "part-1.npy", np.ones((4, 2)))
    np.save(tmp_path / "part-2.npy", np.ones((4, 3)))
    with pytest.raises(
        DataError, match=r"part-2\.npy, column 'part': rows of shape \[3\], those of"
    ):
        open_table(tmp_path / "part-*.npy")
    content = (tmp_path / "part-1.npy").read_bytes()
    (tmp_path / "part-2.npy").write_bytes(content[:-8])
    with pytest.raises(DataError, match=r"part-2\.npy is not an npy file of numbers, or cut short"):
        open_table(tmp_path / "part-*.npy")


def test_a_column_in_fortran_order_is_read_as_its_rows(tmp_path):
    x = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    np.savez(tmp_path / "a.npz", x=x)
    assert open_table(tmp_path / "a.npz").tensors["x"].tolist() == x.tolist()


def test_what_is_converted_is_found_again_until_a_file_changes(tmp_path, parts, monkeypatch):
    pattern = parts("y\n1\n2\n", "y\n3\n")
    said = []
    first = open_table(pattern, progress=said.append)
    monkeypatch.setattr("vitools.data.conversion.survey", None)  # a second reading would call it
    again = open_table(pattern, progress=said.append)
    assert first.cache == again.cache
    assert torch.equal(first.tensors["y"], again.tensors["y"])
    monkeypatch.undo()
    first.tensors["y"][0] = 7  # a model's own copy
    assert open_table(pattern).tensors["y"][0] == 1
    (tmp_path / "part-1.csv").write_text("y\n3\n4\n")
    assert open_table(pattern).tensors["y"].tolist() == [1, 2, 3, 4]
    (first.cache / "y.values").write_bytes(b"")
    assert open_table(pattern).tensors["y"].tolist() == [1, 2, 3, 4]
    assert sorted(p.name for p in first.cache.iterdir()) == ["dropped.npy", META, "y.values"]
    assert [p.name for p in first.cache.parent.iterdir()] == [first.cache.name]


def test_a_cache_elsewhere_and_wrong_use(tmp_path, parts):
    pattern = parts("y\n1\n")
    assert open_table(pattern, cache=tmp_path / "kept").cache.parent == tmp_path / "kept"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot write the converted columns.*cache="):
        open_table(pattern, cache=tmp_path / "file")
    with pytest.raises(FileError, match=r"no file matches '.*none-\*\.csv'"):
        open_table(tmp_path / "none-*.csv")
    with pytest.raises(OptionError, match="missing: expected one of"):
        open_table(pattern, missing="skip")
    with pytest.raises(DataError, match=r"column 'y': blank throughout"):
        open_table(parts("y,z\n,1\n"), missing="mask")


MEMORY = """
import sys
import numpy as np
from vitools.data import open_table
import torch

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("RssAnon"))

before, most = anonymous(), 0.0
def watch(words):
    global most
    most = max(most, anonymous())
import vitools.data.conversion
vitools.data.conversion.EVERY = 0.0
table = open_table(sys.argv[1], progress=watch)
total = sum(float(x.sum()) for x in table.tensors.values())
print(max(most, anonymous()) - before, total)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_where_it_was(tmp_path):
    block = np.ones((10_000, 20))
    for i in range(2):  # 40 MB each
        with (tmp_path / f"part-{i}.npy").open("wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": (250_000, 20)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(25):
                file.write(block.data)
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "part-*.npy")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, total = map(float, run.stdout.split())
    assert total == 2 * 250_000 * 20
    assert grown < 40  # megabytes, of 80


def test_labels_of_an_earlier_table_code_the_next(tmp_path, parts):
    old = open_table(parts("k\nb\na\nc\n"))
    pattern = parts("k\nc\nc\n", "k\nb\n")
    assert open_table(pattern).tensors["k"].tolist() == [1, 1, 0]
    again = open_table(pattern, labels=old.labels)
    assert [again.labels["k"][code] for code in again.tensors["k"]] == ["c", "c", "b"]
    assert again.labels == old.labels
    with pytest.raises(
        DataError, match=r"part-1\.csv, line 3, column 'k': 'd' is none of the 3 labels"
    ):
        open_table(parts("k\nc\n", "k\nb\nd\n"), labels=old.labels)
    with pytest.raises(DataError, match=r"column 'k': numbers, where labels are given \(b, a, c\)"):
        open_table(parts("k\n1\n", "k\n2\n"), labels=old.labels)
    with pytest.raises(OptionError, match="labels: no argument 'z'"):
        open_table(pattern, labels={"z": ["a"]})
    with pytest.raises(OptionError, match="labels: expected different words for 'k'"):
        open_table(pattern, labels={"k": ["a", "a"]})
