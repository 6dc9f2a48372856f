"""The errors a user can meet. Each message says what was expected, what was got, and what to do.

Everything derives from :class:`VitoolsError`, so ``except VitoolsError`` catches every
mistake the library can explain; anything else that escapes is a bug in vitools.
"""

import inspect
from collections.abc import Iterable


def sentence(message: object) -> str:
    """The message with a full stop."""
    text = str(message)
    return text if not text or text[-1] in ".!?…" else f"{text}."


def clause(error: BaseException) -> str:
    """An error's message as part of a longer sentence."""
    return str(error).rstrip(".")


class VitoolsError(Exception):
    """Something the user can put right; the message names the site or file."""

    is_common: bool = False
    """Whether all processes of a sharded run raise it."""

    def __init__(self, message: object = "") -> None:
        super().__init__(sentence(message))


class ModelError(VitoolsError):
    """The model itself cannot be used: nothing observed, unstable shapes, a site no engine can sum."""


class DataError(VitoolsError):
    """The data do not fit the model or cannot be read: NaN, outside the support, a bad column.

    Args:
        row: the entry at fault along the first dim of a tensor of data, where the message speaks of one.
    """

    def __init__(self, message: object = "", *, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class OptionError(VitoolsError):
    """An argument has an impossible value: an unknown site name, a negative count."""


class NotSupportedError(VitoolsError):
    """This engine or posterior cannot do what was asked; the message says which one can."""


class NumericalError(VitoolsError):
    """A computation left the numbers: NaN or infinity, with the site and the step named."""


class FileError(VitoolsError):
    """A saved fit or report cannot be read or written: damaged, foreign, or a folder without leave."""


class ProcessError(VitoolsError):
    """Another process of a sharded run has ended or does not answer; a checkpoint goes on from there."""


class VitoolsWarning(UserWarning):
    """Something slower or weaker than it could be, said once."""

    def __init__(self, message: object = "") -> None:
        super().__init__(sentence(message))


class NotConjugateError(VitoolsError):
    """A site has no closed-form update; names the site, the operation, and what to use instead.

    Attributes:
        sites: latents of which one at a value may mend it.
    """

    def __init__(self, message: object = "", sites: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.sites = frozenset(sites)


def first_words(error: BaseException) -> str:
    """An error's message on one line, without the table of shapes that Pyro appends."""
    return " ".join(str(error).partition("Trace Shapes:")[0].split())[:300] or "no message"


def callers_level() -> int:
    """The ``stacklevel`` with which a warning of the function that asks points outside the package."""
    level, outermost = 0, 0
    frame = inspect.currentframe()
    while frame := frame.f_back if frame else None:  # torch and scipy call back into the package
        level += 1
        name = frame.f_globals.get("__name__", "")
        if name == "vitools" or name.startswith("vitools."):
            outermost = level
    return outermost + 1
