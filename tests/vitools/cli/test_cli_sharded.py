"""``vitools fit --sharded``: what is refused, and the command as torchrun starts it."""

import os
import re
import subprocess
import sys

import pytest

from vitools.errors import OptionError

MODEL = """
import pyro, torch, pyro.distributions as dist


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def line(x, y):
    w = pyro.sample("w", dist.Normal(number(0.0), 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x * w, number(0.5)), obs=y)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    rows = "\n".join(f"{i / 10},{i / 5 + (i % 7) / 10}" for i in range(41))
    (tmp_path / "rows.csv").write_text(f"x,y\n{rows}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "rows.csv"], "no other process is there to share the rows (RANK, WORLD_SIZE"),
        ([], "--sharded: of which rows? Add --data FILE"),
        (
            ["--data", "rows.csv", "--batch-rows", "5"],
            "--sharded: not beside --update or --batch-rows",
        ),
    ],
)
def test_refused(folder, monkeypatch, options, words):
    monkeypatch.delenv("RANK", raising=False)
    from typer.testing import CliRunner

    from vitools.cli.app import app

    result = CliRunner().invoke(app, ["fit", "mine.py:line", "--sharded", "rows", *options])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_outside_of_torchrun_nothing_is_begun(monkeypatch):
    from vitools.cli.processes import processes

    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(OptionError, match="Start the command by torchrun"), processes("rows"):
        pass
    with processes(None) as none:
        assert none is None


def torchrun(folder, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "vitools", "fit", "mine.py:line", "--data", "rows.csv", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_two_processes_print_and_write_once(folder):
    done = torchrun(folder, "--sharded", "rows", "--out", "fits")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cavi fit of model 'line'") == 1
    assert "over 41 rows of 'rows' on 2 processes" in " ".join(done.stdout.split())
    xs = [i / 10 for i in range(41)]
    ys = [i / 5 + (i % 7) / 10 for i in range(41)]
    precision = 0.25 + sum(x * x for x in xs) / 0.25
    mean = sum(x * y for x, y in zip(xs, ys, strict=True)) / 0.25 / precision
    assert re.search(rf"^w +{mean:.4g} +{precision**-0.5:.2g}$", done.stdout, flags=re.MULTILINE)
    assert [path.name for path in (folder / "fits").iterdir()] == ["fit.safetensors"]


@pytest.mark.slow
def test_an_error_of_all_is_told_once(folder):
    done = torchrun(folder, "--sharded", "lines")
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count("vitools: sharded: no plate 'lines' in model 'line'") == 1
    assert done.stdout == ""
    of_one = torchrun(folder, "--sharded", "rows", "--method", "nuts")
    assert "--sharded is for --method cavi, own-guide" in of_one.stderr
