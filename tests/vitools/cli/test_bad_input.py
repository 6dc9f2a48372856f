"""Whatever is wrong with the input: exit code 2, one message, nothing half-written."""

import os
import re
import resource
import signal
from pathlib import Path

import pytest
import torch
from bad_calls import CASES as CALLS
from bad_inputs import CLASSES as INPUTS
from bad_models import MODELS
from bad_options import CASES as OPTIONS
from bad_tables import CASES as TABLES

import vitools as v
from vitools import data, diagnostics, guides, reporting
from vitools.errors import VitoolsError
from vitools.models import coin
from vitools.posterior import FactorisedPosterior, Status

ROOT = Path(__file__).resolve().parents[3]

CLASSES = INPUTS | {"tables": TABLES, "what is typed": OPTIONS}
COMMANDS = {name: case for cases in CLASSES.values() for name, case in cases.items()}


@pytest.fixture(autouse=True, scope="module")
def short_runs():
    """Inputs are refused before any fit begins; one that is not is fitted for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitools.cli.methods.RESTARTS", 1)
        yield


def contents(folder):
    """Every file of a folder with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def test_no_case_hides_another_of_its_name():
    assert sum(map(len, CLASSES.values())) == len(COMMANDS)


def test_the_page_counts_what_is_tried():
    """docs/data.md, by class: how many malformed inputs there are, and one of them with its message."""
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    counted = dict(re.findall(r"^\| ([A-Za-z ]+) \| (\d+) \|", page, flags=re.MULTILINE))
    expected = {
        name: len(cases) for name, cases in (CLASSES | {"calls from Python": CALLS}).items()
    }
    assert {name: int(count) for name, count in counted.items()} == expected
    assert f"{sum(expected.values())} malformed inputs" in page


def lay_out(folder, files):
    """The files of a case and that of the models; names that end in a slash are folders."""
    (folder / "m.py").write_text(MODELS)
    for file, content in files.items():
        if file.endswith("/"):
            (folder / file).mkdir()
        else:
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_refused_in_one_message(vitools, folder, name):
    arguments, given, words = COMMANDS[name]
    lay_out(folder, given if isinstance(given, dict) else {"d.csv": given})
    before = contents(folder)

    result = vitools(*arguments)

    assert result.exit_code == 2, result.output
    message = " ".join(result.stderr.replace("│", " ").split())
    assert message.count("vitools: ") + message.count("─ Error ─") == 1
    assert "Traceback" not in message
    assert 'File "' not in message
    for word in words:
        assert word in message
    assert len(message) < 900, "a message, not a treatise"
    assert contents(folder) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_in_one_message(folder, name):
    lay_out(folder, {"d.csv": "x,y\n1,2\n2,\n", "sub/": ""})
    before = contents(folder)
    problem = v.Problem(coin.model, coin.simulate(20))
    q = torch.distributions.Beta(torch.tensor(14.0).double(), torch.tensor(8.0).double())
    fit = FactorisedPosterior(problem, {"p": q}, 0.0, engine="cavi", status=Status.CONVERGED)
    names = {"p": problem, "f": fit, "v": v, "coin": coin, "torch": torch, "guides": guides}
    with pytest.raises(VitoolsError) as caught:
        eval(
            CALLS[name], names | {"data": data, "diagnostics": diagnostics, "reporting": reporting}
        )
    assert 10 < len(str(caught.value)) < 900
    assert contents(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
@pytest.mark.parametrize(
    "command", ["fit coin --out f", "compare coin --report f", "draw coin --out f/g.svg"]
)
def test_a_read_only_folder_is_refused(refused, folder, command):
    (folder / "f").mkdir(mode=0o500)
    assert "no leave" in refused(*command.split())
    assert os.listdir("f") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_an_unreadable_file_is_refused(refused, folder):
    (folder / "m.py").write_text(MODELS)
    (folder / "d.csv").touch(mode=0)
    assert "cannot be read" in refused("fit", "m.py:coin", "--data", "d.csv")


@pytest.fixture
def full_disk():
    """A limit of 6 kB on every file written: the system's own refusal in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    ("command", "lost"),
    [
        ("compare coin --methods exact --report out", "index.html"),
        ("fit coin --method exact --out out", "posterior.nc"),
        ("draw coin --out out/coin.png", "coin.png"),
    ],
)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_disk_that_fills_up_leaves_the_folder_as_it_was(
    refused, folder, full_disk, command, lost, is_there
):
    if is_there:
        Path("out").mkdir()
        Path("out", "notes.txt").write_text("mine")
    before = contents(folder)
    message = refused(*command.split())
    assert f"cannot write 'out/{lost}'" in message
    if not command.startswith("draw"):
        assert contents(folder) == before
    assert not Path("out", lost).exists()
