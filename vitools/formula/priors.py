"""Priors of a formula's sites: weakly informative by default, written down with the reason, replaceable."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch

from vitools.errors import OptionError
from vitools.problem.sites import listed, nearest
from vitools.supports import bounds

DIGITS = 3
"""Significant digits of a default prior: it is weak, and the model should be fit to be read."""

Number = float | tuple[float, ...]


@dataclass(frozen=True)
class Prior:
    """A distribution of ``pyro.distributions`` with numbers as its parameters.

    Attributes:
        parameters: by name, in the order of the constructor; a tuple has one number for each element.
        why: in words where it comes from.
        shift: the site's location is reduced by this Python expression of other sites.
    """

    distribution: str
    parameters: Mapping[str, Number]
    why: str = ""
    shift: str = ""

    @classmethod
    def of(cls, distribution: str, why: str = "", **parameters: Any) -> "Prior":
        """Arrays whose elements are alike become one number; scales are rounded."""
        found = {name: _tidy(value) for name, value in parameters.items()}
        return cls(distribution, found, why)

    @property
    def source(self) -> str:
        """As Python, ``number`` being the constructor of tensors."""
        arguments = [
            f"number({list(v) if isinstance(v, tuple) else v!r})" for v in self.parameters.values()
        ]
        if self.shift:
            arguments[0] += f" - {self.shift}"
        return f"dist.{self.distribution}({', '.join(arguments)})"

    def __str__(self) -> str:
        return f"{self.distribution}({', '.join(map(_number_words, self.parameters.values()))})"


@dataclass(frozen=True)
class Priors(Mapping[str, Prior]):
    """The priors of a model by site; printed, a table with the reason of each."""

    of_site: Mapping[str, Prior]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Prior:
        if name not in self.of_site:
            raise OptionError(
                f"no prior '{name}' (priors: {', '.join(self.of_site)}).{nearest(name, self.of_site)}"
            )
        return self.of_site[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.of_site)

    def __len__(self) -> int:
        return len(self.of_site)

    def __str__(self) -> str:
        rows = [(name, str(prior), prior.why) for name, prior in self.of_site.items()]
        widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
        lines = [
            f"{name:<{widths[0]}}  {prior:<{widths[1]}}  {why}".rstrip()
            for name, prior, why in rows
        ]
        return "\n".join([*lines, *self.notes])


def rounded(value: float, scale: float) -> float:
    """A location to a hundredth of the scale on which it matters.

    >>> rounded(298.50789, 56.3), rounded(1e7 + 0.1234, 0.1)
    (298.5, 10000000.123)
    """
    digits = DIGITS - 1 - math.floor(math.log10(scale))
    return float(round(value, digits)) + 0.0  # no -0.0


def _tidy(value: Any) -> Number:
    numbers = [_significant(v) for v in np.atleast_1d(np.asarray(value, dtype=float)).tolist()]
    return numbers[0] if len(set(numbers)) == 1 else tuple(numbers)


def _significant(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _number_words(value: Number) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}"
    return f"[{listed([f'{v:g}' for v in value], 6)}]"


# ---- given by the user -----------------------------------------------------------------------

SUPPORTS = {
    "any": "a distribution on the real numbers, such as Normal, StudentT, Laplace",
    "positive": "a distribution on the positive numbers, such as HalfNormal, HalfCauchy, Gamma, Exponential",
}


def with_given(
    default: Mapping[str, Prior], given: Any, sizes: Mapping[str, int], positive: Sequence[str]
) -> dict[str, Prior]:
    """The default priors, some replaced by the user's.

    Args:
        given: ``{name: distribution}``, of ``pyro.distributions``.
        sizes: of those of several elements, how many.
        positive: the names of scales.
    """
    if given is None:
        return dict(default)
    if not isinstance(given, Mapping):
        raise OptionError(f"priors: expected {{name: distribution}}, got {given!r}.")
    found = dict(default)
    for name, distribution in given.items():
        if name not in default:
            raise OptionError(
                f"priors: nothing is called {name!r} (priors: {', '.join(default)}).{nearest(str(name), default)}"
            )
        kind = "positive" if name in positive else "any"
        prior = _read(name, distribution, sizes.get(name, 1))
        lower, upper = bounds(distribution.support)
        is_positive = lower is not None and float(torch.as_tensor(lower).min()) >= 0
        fits = is_positive if kind == "positive" else upper is None
        if not fits or distribution.support.is_discrete:
            raise OptionError(
                f"priors: '{name}' expected {SUPPORTS[kind]}, got {type(distribution).__name__}."
            )
        found[name] = replace(prior, why="given")
    return found


def _read(name: str, distribution: Any, size: int) -> Prior:
    """A distribution as its name and numbers."""
    kind = type(distribution).__name__
    if not isinstance(distribution, torch.distributions.Distribution):
        raise OptionError(
            f"priors: '{name}' expected a distribution of pyro.distributions, such as Normal(0.0, 1.0), got "
            f"{distribution!r}."
        )
    known = getattr(dist, kind, None)
    is_plain = (isinstance(known, type) and isinstance(distribution, known)) or (
        known is not None and kind in torch.distributions.__all__
    )
    names = [
        p
        for p in inspect.signature(type(distribution)).parameters
        if p in distribution.arg_constraints
    ]
    if (
        not is_plain
        or not names
        or distribution.event_shape
        or set(names) != set(distribution.arg_constraints)
    ):
        raise OptionError(
            f"priors: '{name}' expected one of the scalar distributions of pyro.distributions with numbers "
            f"as parameters, such as Normal(0.0, 1.0), got {kind}."
        )
    shape = tuple(distribution.batch_shape)
    if shape not in ((), (1,), (size,)):
        wanted = f"one distribution or {size}" if size > 1 else "one distribution"
        raise OptionError(f"priors: '{name}' expected {wanted}, got {kind} of shape {list(shape)}.")
    parameters: dict[str, Number] = {}
    for p in names:
        values = getattr(distribution, p).detach().double().reshape(-1).tolist()
        parameters[p] = values[0] if len(set(values)) == 1 else tuple(values)
    return Prior(kind, parameters)
