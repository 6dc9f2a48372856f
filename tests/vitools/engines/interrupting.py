"""Ctrl-C at a line of one's choice."""

import sys
from collections.abc import Callable
from pathlib import Path

import vitools

PACKAGE = Path(vitools.__file__).parent
ENGINE_FILES = ("engines", "files")


class Lines:
    """Counts the lines that engines run, and presses Ctrl-C before number ``press_at``.

    Args:
        function: the only one whose lines count, if given.
    """

    def __init__(self, press_at: int | None = None, *, function: str = "") -> None:
        self.press_at, self.count, self.function = press_at, 0, function
        self.where = "nowhere"
        self.roots = tuple(str(PACKAGE / name) for name in ENGINE_FILES)

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(self.roots):
            return None
        if self.function not in ("", frame.f_code.co_name):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.press_at:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self

    def watch(self, *, is_on: bool = True) -> None:
        """From here on, also in the functions that are being run, or no longer."""
        sys.settrace(self if is_on else None)
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(self.roots):
                frame.f_trace = self if is_on else None
            frame = frame.f_back


def pressed(run: Callable[[], object]) -> object | None:
    """What ``run`` returned, or None where it raised KeyboardInterrupt; nothing is watched after."""
    before = sys.gettrace()
    try:
        return run()
    except KeyboardInterrupt:
        return None
    finally:
        sys.settrace(before)
