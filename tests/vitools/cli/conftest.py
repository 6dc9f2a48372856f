"""The command line in process, in a folder of its own."""

import math
import sys

import pytest
from typer.testing import CliRunner

from vitools.cli import progress
from vitools.cli.app import app


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of a test: empty, and left again with the import path as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def no_lines_of_load(monkeypatch):
    """A slow machine writes no line about a run that takes long: what is written is the command's.

    Tests of these lines set the seconds themselves.
    """
    monkeypatch.setattr(progress, "QUICK", math.inf)
    monkeypatch.setattr(progress, "EVERY", math.inf)


@pytest.fixture
def vitools(folder, no_lines_of_load):
    """``vitools("fit", "coin")`` runs that command; a traceback fails the test."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def refused(vitools):
    """Runs a command that must end with one message on standard error; returns it without its place on the page of errors."""

    def run(*arguments, code=2):
        result = vitools(*arguments)
        assert result.exit_code == code, result.output
        assert result.stderr.startswith("vitools: ")
        assert result.stderr.count("vitools: ") == 1
        assert "Traceback" not in result.output
        message, _, _ = result.stderr.removeprefix("vitools: ").partition("\nsee docs/errors.md#")
        return message.rstrip("\n")

    return run
