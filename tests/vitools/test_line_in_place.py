"""A line that updates in place: on a terminal, in a notebook that is run, in a pipe."""

import io
import sys

import pytest

from vitools.engines import progress
from vitools.engines.progress import Progress, listener
from vitools.notebook.line import line_in_place


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.fixture
def standard_error(monkeypatch):
    """Puts a stream there; within the test, because pytest puts its own there before each."""

    def put(*, is_terminal, columns=80):
        stream = Stream(is_terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", str(columns))
        return stream

    return put


def test_on_a_terminal_each_text_takes_the_place_of_the_one_before(standard_error):
    terminal = standard_error(is_terminal=True, columns=20)
    line = line_in_place()
    line("a text that is far too long for it")
    line("short")
    assert terminal.getvalue() == "\r\x1b[Ka text that is far \r\x1b[Kshort"
    del line
    assert terminal.getvalue().endswith("short\n")


def test_a_line_without_a_text_leaves_the_terminal_alone(standard_error):
    terminal = standard_error(is_terminal=True)
    line = line_in_place()
    del line
    assert terminal.getvalue() == ""


def test_reports_of_a_run_are_shown_in_place(standard_error):
    terminal = standard_error(is_terminal=True)
    tell = listener(True)
    tell(Progress("cavi", 10, 100, -5.0, 1.0))
    tell(Progress("cavi", 40, 100, -4.0, 2.0))
    first, second = terminal.getvalue().split("\r\x1b[K")[1:]
    assert first == "cavi  step 10  bound -5.0  10 steps/s  at most 9 s more"
    assert second == "cavi  step 40  bound -4.0  30 steps/s  at most 2 s more"


def test_in_a_pipe_a_line_is_written_now_and_then(standard_error, monkeypatch):
    stream = standard_error(is_terminal=False)
    assert line_in_place() is None
    tell = listener(True)
    tell(Progress("cavi", 10, 100, -5.0, 1.0))
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    tell(Progress("cavi", 20, 100, -5.0, 1.0))
    assert stream.getvalue() == "cavi  step 20  bound -5.0  20 steps/s  at most 4 s more\n"


SHORT = "from vitools.notebook.line import line_in_place\nline = line_in_place()\nline('one')\nline('two')"
RUN = """
import torch
from vitools import Problem, cavi
from vitools.models import bayesian_regression

data = bayesian_regression.simulate(60, 3, seed=2)
cavi(Problem(bayesian_regression.model, data.features, data.target), progress=True);
"""


@pytest.mark.parametrize(
    ("source", "text"),
    [(SHORT, "two"), pytest.param(RUN, "cavi  step", marks=pytest.mark.slow)],
)
def test_in_a_notebook_one_display_has_the_last_text(source, text):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    (shown,) = notebook.cells[0].outputs
    assert shown.output_type == "display_data"
    assert shown.data["text/plain"].startswith(text)
    assert shown.data["text/plain"].count(text) == 1
