"""The errors a user can meet. Each message says what was expected, what was got, and what to do.

Everything derives from :class:`VitoolsError`, so ``except VitoolsError`` catches every
mistake the library can explain; anything else that escapes is a bug in vitools.
"""

import inspect
from collections.abc import Iterable

PAGE = "docs/errors.md"

SECTIONS = {
    "ModelError": "models-that-cannot-be-read-modelerror",
    "DataError": "data-that-do-not-fit-dataerror",
    "OptionError": "arguments-optionerror",
    "NotConjugateError": "no-rule-for-coordinate-ascent-notconjugateerror",
    "NotSupportedError": "what-an-engine-or-a-fit-cannot-do-notsupportederror",
    "NumericalError": "a-computation-that-left-the-numbers-numericalerror",
    "FileError": "files-fileerror",
    "ProcessError": "other-processes-processerror",
}
"""The section of :data:`PAGE` on each class of errors."""

CASES = {
    "observes nothing": "nothing-is-observed",
    "so nothing says that its entries are independent": "a-discrete-latent-outside-of-a-plate",
    "whose values cannot be listed": "counts-whose-values-cannot-be-listed",
    "has no size, so nothing says how many rows": "a-plate-without-a-size",
    "in place (": "data-changed-in-place",
    "draws random numbers outside of its sample statements": "random-numbers-of-its-own",
    "its support depends on other latents": "a-support-that-moves-with-a-latent",
    "Its arguments: ": "an-argument-is-missing",
    "when run on its data": "the-model-does-not-run",
    "is sampled twice": "two-sites-of-one-name",
    ": expected a finite number, got": "nan",
    ": expected a value in the support of": "outside-of-the-support",
    ": expected observations as a torch tensor": "not-a-tensor",
    "named in start": "a-start-for-another-site",
    "no latent site": "a-site-that-is-not-there",
    "expected a whole number of at least": "a-number-that-is-too-small",
    "which is no latent of model": "a-guide-of-another-model",
    "are fits of different problems": "fits-of-different-problems",
    "is not among the fits": "a-reference-that-is-not-there",
    " labels, got ": "labels-of-another-number",
    "not conjugate to its parent": "a-function-without-a-rule",
    "while it runs (": "a-condition-on-a-latent",
    "the in-place operation": "writing-into-a-tensor",
    "has only discrete latents": "only-discrete-latents",
    "continuous dimensions; quadrature": "too-many-dimensions-for-quadrature",
    "draws, not a density": "a-density-of-draws",
    "there are no rows to take some of": "rows-of-minibatches-that-are-tied",
    "have no KL to weight": "the-kl-of-a-latent-that-is-summed-out",
    "Continuous inference cannot handle discrete": "a-point-estimate",
    "cells are boxes of numbers": "a-site-without-cells",
    "given the others the posterior is improper": "an-improper-posterior",
    "it was damaged or cut short": "a-file-that-is-no-fit",
    "no file ": "no-such-file",
    "is a fit of model": "a-fit-of-another-model",
}
"""Words of a message: the section of :data:`PAGE` on that case; the first that a message has counts."""


def sentence(message: object) -> str:
    """The message with a full stop."""
    text = str(message)
    return text if not text or text[-1] in ".!?…" else f"{text}."


def clause(error: BaseException) -> str:
    """An error's message as part of a longer sentence."""
    return str(error).rstrip(".")


def section(kind: type["VitoolsError"], message: str) -> str | None:
    """Where :data:`PAGE` explains a message: at its case, else at the class of its error."""
    case = next((anchor for words, anchor in CASES.items() if words in message), None)
    return case or next(
        (SECTIONS[k.__name__] for k in kind.__mro__ if k.__name__ in SECTIONS), None
    )


class VitoolsError(Exception):
    """Something the user can put right; the message names the site or file.

    Below the message, a note (``__notes__``, which Python prints with it) says where it is explained.
    """

    is_common: bool = False
    """Whether all processes of a sharded run raise it."""

    def __init__(self, message: object = "") -> None:
        super().__init__(sentence(message))
        if (anchor := section(type(self), str(self))) is not None:
            self.add_note(f"see {PAGE}#{anchor}")


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


def with_notes(error: BaseException) -> str:
    """An error's message and, on lines of their own, what Python prints below it."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


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
