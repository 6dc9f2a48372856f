"""Output folders: whose files are replaced, what is stored of each fit."""

import os
import shutil
from pathlib import Path

import arviz
import pytest

from vitools.errors import FileError
from vitools.files.folders import whole_folder
from vitools.files.ownership import is_own

COMPARE = ("compare", "coin", "--methods", "exact,laplace")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("fit coin --out out", "fit.safetensors"),
        ("compare coin --report out", "index.html"),
        ("compare coin --report out", "comparison.csv"),
        ("compare coin --report out", "graph.png"),
        ("compare coin --report out --methods exact,normal", "SVI_normal.safetensors"),
        ("draw coin --out out/g.svg", "g.svg"),
        ("calibrate coin --method cavi --out out", "calibration-cavi.png"),
    ],
)
def test_a_file_of_others_is_refused_before_any_work(refused, folder, command, name):
    (folder / "out").mkdir()
    (folder / "out" / name).write_text("mine")
    message = refused(*command.split())
    assert message.startswith(f"'out/{name}' was not written by vitools, and would be overwritten.")
    assert "--force" in message
    assert os.listdir("out") == [name]
    assert (folder / "out" / name).read_text() == "mine"


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_its_own_picture_is_replaced_and_that_of_others_by_force_only(vitools, folder, suffix):
    path = folder / f"g.{suffix}"
    path.write_text("mine")
    command = ("draw", "coin", "--out", path.name)
    assert vitools(*command).exit_code == 2
    assert vitools(*command, "--force").exit_code == 0
    assert vitools(*command).exit_code == 0
    assert is_own(path)


def stored_fits():
    return {p.name: arviz.from_netcdf(p).attrs["fit"] for p in Path("report").glob("*.nc")}


def test_a_report_says_when_it_replaces_an_earlier_one_and_stores_every_fit(vitools, folder):
    said = "report: the report of an earlier run is replaced\n"
    first = vitools(*COMPARE, "--draws", "100")
    assert first.exit_code == 0, first.output
    assert said not in first.stdout
    assert sorted(stored_fits().values()) == ["Laplace", "exact"]
    (folder / "report" / "notes.txt").write_text("mine")
    (folder / "report" / "posterior_mine.nc").write_text("mine")
    old = folder / "report" / "posterior_NUTS.nc"  # of a method that this run has not
    shutil.copy(folder / "report" / "posterior.nc", old)
    named = vitools(*COMPARE, "--draws", "100", "--fit", "laplace")
    assert named.exit_code == 0, named.output
    assert said in named.stdout
    assert (folder / "report" / "posterior_mine.nc").read_text() == "mine"
    (folder / "report" / "posterior_mine.nc").unlink()
    assert stored_fits() == {"posterior.nc": "Laplace", "posterior_exact.nc": "exact"}
    assert (folder / "report" / "notes.txt").read_text() == "mine"


def test_a_fit_to_store_must_be_one_that_is_made(refused, folder):
    assert "no method 'lapalce'" in refused(*COMPARE, "--fit", "lapalce")
    message = refused(*COMPARE, "--fit", "nuts")
    assert message.startswith("--fit nuts names a method that is not run.")
    assert "exact, laplace" in message
    assert os.listdir(folder) == []


# ---- the folder itself -------------------------------------------------------------------


def test_new_files_appear_together(tmp_path):
    for folder in (tmp_path / "a" / "b", tmp_path):
        with whole_folder(folder) as aside:
            (aside / "x.txt").write_text("new")
            assert not (folder / "x.txt").exists()
        assert (folder / "x.txt").read_text() == "new"
        assert not list(folder.glob(".*"))


def write_and_fail(folder, ailment):
    with whole_folder(folder) as aside:
        (aside / "x.json").write_text("new")
        raise ailment


@pytest.mark.parametrize("ailment", [KeyboardInterrupt, ZeroDivisionError, OSError("disk full")])
def test_whatever_ends_it_leaves_the_folder_as_it_was(tmp_path, ailment):
    (tmp_path / "x.json").write_text('{"vitools": "1"}')
    for folder in (tmp_path / "a" / "b", tmp_path):
        with pytest.raises((KeyboardInterrupt, ZeroDivisionError, FileError)):
            write_and_fail(folder, ailment)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == '{"vitools": "1"}'


def write_both(folder, **options):
    with whole_folder(folder, **options) as aside:
        (aside / "x.json").write_text("new")
        (aside / "y.json").write_text("new")
        if not (folder / "y.json").exists():
            (folder / "y.json").write_text("appeared meanwhile")


def test_what_cannot_be_replaced_is_found_before_the_first_file_is(tmp_path):
    (tmp_path / "x.json").write_text('{"vitools": "1"}')
    with pytest.raises(FileError, match=r"y\.json' was not written by vitools"):
        write_both(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "y.json"]
    assert (tmp_path / "y.json").read_text() == "appeared meanwhile"
    (tmp_path / "y.json").unlink()
    (tmp_path / "y.json").mkdir()
    with pytest.raises(FileError, match=r"y\.json': it is a folder"):
        write_both(tmp_path, force=True)
    assert (tmp_path / "x.json").read_text() == '{"vitools": "1"}'


def test_a_move_that_fails_halfway_is_undone(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_text("old x")
    (tmp_path / "y.json").write_text("old y")
    replace = os.replace

    def fail_at_the_new_y(source, target):
        if Path(target) == tmp_path / "y.json" and ".replaced" not in str(source):
            raise OSError("no more renames")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_new_y)
    with pytest.raises(FileError, match="no more renames"):
        write_both(tmp_path, force=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "x.json": "old x",
        "y.json": "old y",
    }
