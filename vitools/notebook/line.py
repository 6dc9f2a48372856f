"""One line of text that is updated in place: in a notebook a display of its own, on a terminal the cursor's line."""

import shutil
import sys
import weakref
from collections.abc import Callable
from typing import TextIO


def line_in_place() -> Callable[[str], None] | None:
    """A function that shows a text in the place of the one before; None in a pipe or a file, which have no places."""
    if _in_notebook():
        return _NotebookLine()
    return _TerminalLine(sys.stderr) if sys.stderr.isatty() else None


def _in_notebook() -> bool:
    """Whether a kernel runs this: IPython on a terminal has none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class _NotebookLine:
    """A display of the cell, made by the first text and updated by the others."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle = DisplayHandle()
        self._show = self._handle.display

    def __call__(self, text: str) -> None:
        self._show({"text/plain": text}, raw=True)
        self._show = self._handle.update


class _TerminalLine:
    """The cursor's line, which ends when nobody holds this object any more: with the run that it shows."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_begun = False

    def __call__(self, text: str) -> None:
        if not self._is_begun:
            self._is_begun = True
            weakref.finalize(self, _end, self._stream)
        width = shutil.get_terminal_size().columns - 1  # a longer line would wrap, and stay
        self._stream.write(f"\r\x1b[K{text[:width]}")
        self._stream.flush()


def _end(stream: TextIO) -> None:
    stream.write("\n")
    stream.flush()
