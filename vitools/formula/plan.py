"""Names and scales: from a formula's columns to the sites of its model, their plates and default priors."""

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vitools.errors import DataError, OptionError
from vitools.formula.design import Block, Columns, Matrices
from vitools.formula.families import ResponseFamily
from vitools.formula.priors import Prior, rounded
from vitools.formula.response import Observed

WIDTH = 2.5
"""Prior standard deviations in units of sd(response) / sd(column)."""


@dataclass(frozen=True)
class Coefficients:
    """A term for all rows: site ``name``, ``plate`` of its levels (None for a scalar), argument ``columns``."""

    name: str
    variable: str
    columns: str
    plate: str | None
    labels: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Effects:
    """A block of effects by group: sites ``name``, ``name_sigma``, plates of groups and columns."""

    name: str
    variable: str
    columns: str | None
    index: str
    count: str
    plate: str
    column_plate: str | None
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    scales: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class FormulaPlan:
    """What there is to write down."""

    has_intercept: bool
    centre: float
    spread: float
    coefficients: tuple[Coefficients, ...]
    effects: tuple[Effects, ...]
    row_plate: str
    has_offset: bool


class Names:
    """Names that are given once: the second ``x`` is ``x_2``."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def new(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name


def identifier(text: str) -> str:
    """A name for a variable.

    >>> identifier("1 + Days|Subject"), identifier("I(x ** 2)"), identifier("βx")
    ('1_Days_Subject', 'I_x_2', 'βx')
    """
    found = re.sub(r"\W+", "_", text).strip("_") or "term"
    return f"{found}_" if keyword.iskeyword(found) else found


def plan(matrices: Matrices, observed: Observed, family: ResponseFamily) -> FormulaPlan:
    """Sites, plates, arguments and the scales of priors.

    The response has mean c and standard deviation s on the scale of the predictor (s = 1 behind a curved link,
    c the link of its mean, or 0 for log-odds). A coefficient's prior has the standard deviation 2.5 s / sd(column).
    Without an intercept the columns carry the level as well, and root mean squares stand in the place of
    standard deviations.
    """
    centre, spread = observed.location(family, matrices.offset)
    has_level = matrices.has_intercept
    size = spread if has_level else float(np.hypot(centre, spread))
    variables, sites = Names(), Names(["Intercept", observed.name])
    is_ordered = family.values == "ordered"
    coefficients = []
    for term in matrices.fixed:
        name = _site(term, sites)
        coefficients.append(
            Coefficients(
                name,
                variables.new(f"b_{identifier(term.name)}"),
                variables.new(f"x_{identifier(term.name)}"),
                None if term.is_single else f"{name}_level",
                term.labels,
                tuple(
                    rounded(float(column.mean()), float(column.std()) or 1.0)
                    for column in term.values.T
                ),
                _scales(term.name, term.labels, term.values, size, has_level or is_ordered),
            )
        )
    plates: dict[str, str] = {}
    indices: dict[str, str] = {}
    effects = []
    fixed = {c.name for c in coefficients}
    for block in matrices.blocks:
        if block.factor not in plates:
            is_taken = block.factor in fixed
            plates[block.factor] = f"{block.factor}_group" if is_taken else block.factor
            indices[block.factor] = variables.new(f"g_{identifier(block.factor)}")
        own_plate, index = plates[block.factor], indices[block.factor]
        effects.append(_effects(block, own_plate, index, variables, size))
    names = [c.name for c in coefficients] + [e.name for e in effects]
    plan_plates = {p for c in coefficients if (p := c.plate)} | set(plates.values())
    row_plate = Names([*names, *plan_plates]).new("rows")
    return FormulaPlan(
        matrices.has_intercept,
        rounded(centre, spread),
        spread,
        tuple(coefficients),
        tuple(effects),
        row_plate,
        matrices.offset is not None,
    )


def _site(term: Columns, sites: Names) -> str:
    if term.name in sites.taken:
        raise OptionError(
            f"term '{term.name}' is the name of another site of the model. Rename the column."
        )
    return sites.new(term.name)


def _effects(block: Block, plate: str, index: str, variables: Names, size: float) -> Effects:
    values = np.ones((len(block.codes), 1)) if block.values is None else block.values
    is_level = [bool((column == 1).all()) for column in values.T]
    if sum(is_level) > 1:
        raise DataError(f"'{block.name}': two columns are all ones. Leave one out.")
    scales = tuple(
        WIDTH * size if level else _scales(block.name, (label,), column[:, None], size, True)[0]
        for level, label, column in zip(is_level, block.labels, values.T, strict=True)
    )
    return Effects(
        block.name,
        variables.new(f"u_{identifier(block.name)}"),
        None if block.values is None else variables.new(f"z_{identifier(block.name)}"),
        index,
        f"n{index.removeprefix('g')}",
        plate,
        f"{block.name}_column" if len(block.labels) > 1 else None,
        block.labels,
        block.groups,
        scales,
    )


def _scales(
    name: str, labels: tuple[str, ...], values: np.ndarray, size: float, is_centred: bool
) -> tuple[float, ...]:
    found = []
    for label, column in zip(labels, values.T, strict=True):
        deviation = float(column.std())
        if deviation <= 1e-12 * float(np.abs(column).max(initial=0.0)):
            which = name if label == name else f"{name}[{label}]"
            raise DataError(
                f"column '{which}': all values are equal, and so say nothing that the intercept does not. "
                "Leave it out."
            )
        if not is_centred:
            deviation = float(np.sqrt((column**2).mean()))
        found.append(WIDTH * size / deviation)
    return tuple(found)


def default_priors(made: FormulaPlan, family: ResponseFamily) -> dict[str, Prior]:
    """By site."""
    found: dict[str, Prior] = {}
    unit = "sd(y)" if family.is_scaled else "1"
    root = "sd" if made.has_intercept or family.values == "ordered" else "rms"
    numerator = "rms(y)" if root == "rms" and family.is_scaled else unit
    for own in made.coefficients:
        why = f"{WIDTH} · {numerator} / {root}({own.name})"
        found[own.name] = Prior.of("Normal", loc=0.0, scale=own.scales, why=why)
    if made.has_intercept and family.values != "ordered":
        why = f"{WIDTH} · {unit}, of a row at the mean of all columns"
        found["Intercept"] = Prior(
            "Normal",
            {
                "loc": made.centre,
                "scale": Prior.of("", scale=WIDTH * made.spread).parameters["scale"],
            },
            why,
            "level_of_columns" if made.coefficients else "",
        )
    for own_effects in made.effects:
        name = f"{own_effects.name}_sigma"
        why = (
            f"{WIDTH} · {numerator} / sd(column)"
            if own_effects.columns
            else f"{WIDTH} · {numerator}"
        )
        if own_effects.size == 1:
            found[name] = Prior.of("HalfNormal", scale=own_effects.scales[0], why=why)
        else:
            found[name] = Prior.of(
                "half-t",
                df=2.0,
                scale=own_effects.scales,
                why=f"{why}, any correlation alike likely",
            )
    for name, make in family.parameters.items():
        found[name] = make(made.spread)
    return found


def level_of_columns(made: FormulaPlan) -> list[str]:
    """What the columns add at their means, as summands of Python."""
    return [
        f"number({own.means[0]!r}) * {own.variable}"
        if own.plate is None
        else f"number({list(own.means)}) @ {own.variable}"
        for own in made.coefficients
    ]
