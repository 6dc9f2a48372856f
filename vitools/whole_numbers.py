"""Options that are whole numbers: counts, and the seeds of generators."""

import operator
from typing import Any

from vitools.errors import OptionError

LARGEST_SEED = 2**52
"""Of a run; what is derived from it for its parts (a thousandfold for chains) fits 63 bits."""


def is_whole(value: Any) -> bool:
    """Whether it counts as an integer (numpy's do); 1.5, 2.0, True and tensors do not."""
    if isinstance(value, bool) or hasattr(value, "requires_grad"):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise :class:`OptionError` for what is no whole number from ``least`` on."""
    if not is_whole(value) or value < least:
        raise OptionError(f"{name}: expected a whole number of at least {least}, got {value!r}.")


def check_seed(seed: Any, largest: int = LARGEST_SEED) -> None:
    """Raise :class:`OptionError` for what cannot seed every generator."""
    if not is_whole(seed) or not 0 <= seed <= largest:
        raise OptionError(f"seed: expected a whole number from 0 to {largest}, got {seed!r}.")
