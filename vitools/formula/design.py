"""The columns of a formula's terms: as they are in the data, and again, by the same encoding, in new rows."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vitools.errors import DataError, OptionError, VitoolsWarning, callers_level, first_words
from vitools.formula.syntax import Bar, Formula, library
from vitools.problem.sites import listed, nearest

FUNCTIONS: dict[str, Any] = {
    "np": np,
    **{
        name: getattr(np, name)
        for name in [
            "log",
            "log2",
            "log10",
            "log1p",
            "exp",
            "expm1",
            "sqrt",
            "abs",
            "sin",
            "cos",
            "tan",
            "arctan",
            "tanh",
            "sign",
            "floor",
        ]
    },
}
"""What a formula may call beside formulae's own center, scale, poly, bs, C, I, …"""


@dataclass(frozen=True)
class Columns:
    """Columns of one term.

    Attributes:
        labels: of the columns: numbers' own names, levels of a factor.
        values: [N, K].
        is_single: whether it is one number a row, so that its coefficient is a scalar.
    """

    name: str
    labels: tuple[str, ...]
    values: np.ndarray
    is_single: bool


@dataclass(frozen=True)
class Block:
    """Effects of groups that hang together: of one term, or of several whose effects are correlated.

    Attributes:
        name: ``1|g``, ``x|g``, ``1 + x|g``.
        factor: what the groups are called.
        labels: of the columns.
        values: [N, D]; None for the level alone, whose only column is ones.
        codes: each row's group, [N].
        groups: the label of each group.
    """

    name: str
    factor: str
    labels: tuple[str, ...]
    values: np.ndarray | None
    codes: np.ndarray
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Matrices:
    """All columns of some rows.

    Attributes:
        has_intercept: whether there is a level for all rows.
        offset: what is added to the predictor, [N]; None without offsets.
    """

    has_intercept: bool
    fixed: tuple[Columns, ...]
    blocks: tuple[Block, ...]
    offset: np.ndarray | None


class Design:
    """The terms of a formula with the encoding that the data gave them.

    Args:
        frame: whole rows of all columns that the formula names.
        functions: what the formula may call beside :data:`FUNCTIONS`.
    """

    def __init__(self, formula: Formula, frame: pd.DataFrame, functions: Mapping[str, Any]) -> None:
        self.formula, self._functions = formula, dict(functions)
        self.env = environment(functions)
        self._used: dict[str, np.ndarray] = {}
        self._common = self._evaluated(formula.common, frame)
        self._bars = [(bar, self._evaluated(bar.terms, frame)) for bar in formula.bars]
        self.matrices = self._matrices(frame, _Groups(self))

    def at(self, frame: pd.DataFrame) -> Matrices:
        """The same columns of other rows; groups that were not there come last."""
        return self._matrices(frame, _Groups(self, self.matrices), is_new=True)

    def _evaluated(self, model: Any, frame: pd.DataFrame) -> Any:
        """formulae's model with types and encodings fixed by these rows."""
        if model.common_terms:
            self.calling(lambda: model.eval(frame, self.env), frame)
        return model

    def calling(self, step: Callable[[], Any], frame: pd.DataFrame) -> Any:
        """What formulae makes of a term, its errors put in words."""
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused below
                return step()
        except KeyError as error:
            name = str(error.args[0])
            known = [*self.env.namespace.keys()[1], *self._functions, *FUNCTIONS]
            raise OptionError(
                f"formula '{self.formula.text}': nothing is called '{name}': no column and no function "
                f"(columns: {listed([str(c) for c in frame.columns], 12)}).{nearest(name, known)} A "
                "function of your own: functions={'name': …}."
            ) from error
        except Exception as error:
            raise DataError(
                f"formula '{self.formula.text}': a term cannot be computed: {first_words(error).rstrip('.')}."
            ) from error

    # ---- columns ---------------------------------------------------------------------------

    def _matrices(self, frame: pd.DataFrame, groups: "_Groups", is_new: bool = False) -> Matrices:
        columns, offset, has_intercept = self._columns(self._common, frame, is_new)
        blocks: dict[str, Block] = {}
        for bar, model in self._bars:
            for block in self._blocks(bar, model, frame, groups, is_new):
                blocks.setdefault(block.name, block)  # the same effects written twice are one
        return Matrices(has_intercept, tuple(columns), tuple(blocks.values()), offset)

    def _columns(
        self, model: Any, frame: pd.DataFrame, is_new: bool
    ) -> tuple[list[Columns], np.ndarray | None, bool]:
        terms = library("terms")
        found, offset, has_intercept = [], None, False
        for term in model.common_terms:
            if isinstance(term, terms.Intercept):
                has_intercept = True
                continue
            values = term.data
            if is_new:
                values = self.calling(partial(term.eval_new_data, frame), frame)
            values = self._numbers(term.name, values)
            values = np.broadcast_to(
                values.reshape(len(values) if values.ndim else 1, -1),
                (len(frame), values.size // len(values) if values.ndim else 1),
            )
            self._refuse_not_finite(term.name, values)
            if term.kind == "offset":
                offset = values[:, 0] + (0 if offset is None else offset)
                continue
            labels, is_single = _labels(term)
            if not labels:
                raise DataError(
                    f"term '{term.name}': one level ({listed(self._levels(term))}), from which nothing differs. Leave it out."
                )
            kept = self._kept(term.name, labels, values)
            labels = tuple(label for label, keep in zip(labels, kept, strict=True) if keep)
            found.append(Columns(term.name, labels, values[:, kept], is_single))
        return found, offset, has_intercept

    @staticmethod
    def _numbers(name: str, values: Any) -> np.ndarray:
        given = np.asarray(values)
        try:
            return given.astype(float)
        except ValueError as error:
            words = listed(sorted({str(value) for value in given.ravel()}))
            raise DataError(
                f"term '{name}': expected numbers, as in the data of the fit, got words ({words})."
            ) from error

    @staticmethod
    def _levels(term: Any) -> list[str]:
        return [str(level) for c in term.components for level in c.levels or ()]

    def _kept(self, name: str, labels: tuple[str, ...], values: np.ndarray) -> np.ndarray:
        """Which columns some row of the first data has: cells of an interaction may be empty."""
        used = (values != 0).any(0)
        kept = self._used.setdefault(name, used if used.any() else np.ones_like(used))
        empty = [label for label, keep in zip(labels, kept, strict=True) if not keep]
        if kept is used and empty:
            warnings.warn(
                f"term '{name}': no row has {listed(empty)}, left out",
                VitoolsWarning,
                stacklevel=callers_level(),
            )
        new = [label for label, one in zip(labels, used & ~kept, strict=True) if one]
        if new:
            raise DataError(
                f"term '{name}': {listed(new)}, which no row had that was fitted, has no coefficient."
            )
        return kept

    def _refuse_not_finite(self, name: str, values: np.ndarray) -> None:
        bad = ~np.isfinite(values).all(1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"term '{name}': not a finite number in row {row} (counting from 0); the logarithm of 0, a "
                "division by 0?",
                row=row,
            )

    # ---- groups ----------------------------------------------------------------------------

    def _blocks(
        self, bar: Bar, model: Any, frame: pd.DataFrame, groups: "_Groups", is_new: bool
    ) -> list[Block]:
        columns, offset, has_intercept = self._columns(model, frame, is_new)
        if offset is not None:
            raise OptionError(
                f"formula '{self.formula.text}': an offset is for all rows; take it out of ( | )."
            )
        factor = bar.factor.name
        codes, labels = groups.of(bar.factor, frame)
        parts: list[tuple[str, str, np.ndarray | None]] = []
        if has_intercept:
            parts.append(("1", "1", None))
        for term in columns:
            for label, values in zip(term.labels, term.values.T, strict=True):
                own = term.name if term.is_single else f"{term.name}[{label}]"
                parts.append((term.name, own, values))
        if len(parts) == 1 or not bar.is_correlated:
            return [
                Block(
                    f"{label}|{factor}",
                    factor,
                    (label,),
                    None if values is None else values[:, None],
                    codes,
                    labels,
                )
                for _, label, values in parts
            ]
        names = list(dict.fromkeys(name for name, _, _ in parts))
        ones = np.ones(len(frame))
        return [
            Block(
                f"{' + '.join(names)}|{factor}",
                factor,
                tuple("Intercept" if label == "1" else label for _, label, _ in parts),
                np.stack([ones if values is None else values for _, _, values in parts], 1),
                codes,
                labels,
            )
        ]


class _Groups:
    """Codes of groups; those that earlier rows had keep theirs."""

    def __init__(self, design: Design, known: Matrices | None = None) -> None:
        self.design = design
        self.known = {} if known is None else {b.factor: b.groups for b in known.blocks}

    def of(self, factor: Any, frame: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
        """Each row's code, [N], and the label of each group."""
        columns = [self._column(component, frame) for component in factor.components]
        rows = list(zip(*columns, strict=True)) if len(columns) > 1 else [(v,) for v in columns[0]]
        order: Any = dict.fromkeys(rows)
        categories = [self._ordered(c, frame) for c in factor.components]
        ranks = [{v: i for i, v in enumerate(known)} if known else None for known in categories]
        ordered = sorted(
            order,
            key=lambda row: tuple(
                ranks[i][v] if ranks[i] else _sortable(v)  # type: ignore[index]
                for i, v in enumerate(row)
            ),
        )
        labels = list(self.known.get(factor.name, ()))
        code = {label: i for i, label in enumerate(labels)}
        for row in ordered:
            label = joined(map(_label, row))
            if label not in code:
                code[label] = len(labels)
                labels.append(label)
        of_row = {row: code[joined(map(_label, row))] for row in ordered}
        if len(labels) < 2:
            raise DataError(
                f"groups '{factor.name}': expected at least 2 different values, got {len(labels)} "
                f"({listed(labels)}) in {len(frame)} rows. Is another column the group?"
            )
        return np.array([of_row[row] for row in rows], dtype=np.int64), tuple(labels)

    def _column(self, component: Any, frame: pd.DataFrame) -> list[Any]:
        if hasattr(component, "call"):
            values = self.design.calling(lambda: component.call.eval(frame, self.design.env), frame)
            values = getattr(values, "data", values) if _is_box(values) else values
        else:
            values = frame[component.name]
        return np.asarray(values).tolist()

    def _ordered(self, component: Any, frame: pd.DataFrame) -> list[Any] | None:
        """The order of an ordered or unordered categorical column."""
        column = frame.get(component.name)
        if column is not None and isinstance(column.dtype, pd.CategoricalDtype):
            return column.cat.categories.tolist()
        return None


def environment(functions: Mapping[str, Any]) -> Any:
    """Names that a formula may use: formulae's own first, as it has it."""
    own = {**library("transforms").TRANSFORMS, **library("categorical").ENCODINGS}
    return library("environment").Environment([own, {**FUNCTIONS, **functions}])


def _is_box(values: Any) -> bool:
    return isinstance(values, library("categorical").CategoricalBox)


def joined(parts: Iterable[str]) -> str:
    """``a:b``, of several parts those that have a colon themselves between backquotes.

    >>> joined(["x:y", "z"]), joined(["x", "y:z"]), joined(["x:y"])
    ('`x:y`:z', 'x:`y:z`', 'x:y')
    """
    given = list(parts)
    if len(given) == 1:
        return given[0]
    return ":".join(
        "`" + part.replace("`", "``") + "`" if ":" in part or "`" in part else part
        for part in given
    )


def _label(value: Any) -> str:
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


def _sortable(value: Any) -> tuple[int, Any]:
    return (1, value) if isinstance(value, str) else (0, value)


def _labels(term: Any) -> tuple[tuple[str, ...], bool]:
    """A label for each column, and whether the term is one column of numbers under its own name.

    ``b`` of a factor's ``g[b]``, ``b:u`` of an interaction's ``g[b]:h[u]``, ``0``, ``1`` of a spline's.
    """
    parts = []
    for component in term.components:
        prefix = f"{component.name}["
        parts.append(
            [
                label.removeprefix(prefix).removesuffix("]") if label.startswith(prefix) else ""
                for label in component.labels
            ]
        )
    labels = [joined(filter(None, row)) for row in itertools.product(*parts)]
    if labels == [""]:
        return (term.name,), True
    return tuple(labels), False
