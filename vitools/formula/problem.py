"""``from_formula``: the Problem of a formula, a family and a table."""

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vitools.errors import NotSupportedError, OptionError, VitoolsWarning, callers_level
from vitools.formula.design import FUNCTIONS, Design, Matrices, environment
from vitools.formula.families import FAMILIES, ResponseFamily
from vitools.formula.plan import FormulaPlan, default_priors, plan
from vitools.formula.priors import Priors, with_given
from vitools.formula.response import Observed, observe
from vitools.formula.source import arguments, write
from vitools.formula.syntax import Formula, parse
from vitools.formula.table import MissingRows, as_frame, checked_rows
from vitools.problem import Problem
from vitools.problem.sites import nearest


class FormulaModel:
    """The compiled text of a model; pickled as that text."""

    def __init__(self, source: str, name: str) -> None:
        self.source = source
        self.__name__, self.__module__ = name, ""  # whose name the model's is no part of
        namespace: dict[str, Any] = {"__name__": "vitools formula"}
        exec(compile(source, f"<formula {name}>", "exec"), namespace)
        self.__wrapped__: Callable[..., Any] = namespace["model"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.__name__)


class FormulaProblem(Problem):
    """An ordinary :class:`~vitools.Problem` that knows the formula it was made from.

    Attributes:
        formula, family, link: as given.
        source: the Pyro model, written out.
        priors: of each site, with the reason; ``print(problem.priors)``.
        dropped: rows that lacked a value and were left out.
        has_response: whether the table had the response; without it there is nothing to fit, only to predict.
    """

    formula: str
    family: str
    link: str
    source: str
    priors: Priors
    dropped: int
    has_response: bool
    _recipe: "_Recipe"

    @property
    def effects(self) -> dict[str, list[str]]:
        """The sites of effects by group, and what each of their columns is called."""
        return self._recipe.effects

    def at(self, data: Any, *, missing: MissingRows = "refuse") -> "FormulaProblem":
        """The same model of other rows, by the encodings that the fitted rows gave, for ``predictive``.

        Centres, scales, knots and levels stay those of the first rows. Groups that they did not have come
        after those they had. The response may be left out.

        Args:
            data: a data frame, a mapping of columns or the path of a file.
            missing: as of :func:`from_formula`.

        Raises:
            DataError: a column is missing, or a level of a term for all rows is new.
        """
        return self._recipe.at(data, missing)

    def refuse_moving_data(self, subject: str) -> None:
        """Raise where there is no response for ``subject`` to work on, or it is drawn anew."""
        if not self.has_response:
            raise NotSupportedError(
                f"problem.at(…) was given no response '{next(iter(self.observed))}', so {subject} has nothing to work "
                "from: it is for fit.predictive(n, at=…)."
            )
        super().refuse_moving_data(subject)


def from_formula(
    formula: str,
    data: Any,
    family: str = "gaussian",
    *,
    link: str | None = None,
    priors: Mapping[str, Any] | None = None,
    missing: MissingRows = "refuse",
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> FormulaProblem:
    """The problem of a formula in the notation of lme4, brms and Bambi.

    >>> import pandas as pd
    >>> data = pd.DataFrame({"y": [1.0, 2.5, 2.0, 4.5], "x": [0, 1, 2, 3], "g": ["a", "a", "b", "b"]})
    >>> problem = from_formula("y ~ x + (1 | g)", data)
    >>> print(problem.priors)
    x          Normal(0, 2.85)    2.5 · sd(y) / sd(x)
    Intercept  Normal(2.5, 3.19)  2.5 · sd(y), of a row at the mean of all columns
    1|g_sigma  HalfNormal(3.19)   2.5 · sd(y)
    sigma      HalfNormal(3.19)   2.5 · sd(y)
    y: Normal(eta, sigma)

    Args:
        formula: ``response ~ terms``. Terms: columns, ``a:b``, ``a*b``, ``(a + b)**2``, ``0 +``, ``center(x)``,
            ``scale(x)``, ``poly(x, 2)``, ``bs(x, df=5)``, ``C(k)``, ``I(x**2)``, ``log(x)``, ``offset(z)``; by
            group ``(1 | g)``, ``(1 + x | g)`` with correlated effects, ``(1 + x || g)`` without, ``(1 | a/b)`` nested.
            Responses: ``y``, ``f(y)``, ``y[level]``, ``p(k, n)`` or ``cbind(k, m)`` of trials, ``weighted(y, w)``
            (a row counts as w rows), ``precise(y, w)`` (variance sigma²/w).
        data: a data frame, a mapping of columns or the path of a file.
        family: one of :data:`vitools.formula.FAMILIES`.
        link: the family's first if omitted.
        priors: ``{site: distribution}``, in the place of the defaults that ``problem.priors`` tells.
        missing: ``"refuse"`` raises where a value is missing, ``"drop"`` leaves out rows that lack one.
        functions: what the formula may call beside numpy's usual ones, by name.

    Raises:
        OptionError: a formula that cannot be read, an unknown family, link, function or prior.
        DataError: a column that is not there, a value that is missing or that the family does not take.
        NotSupportedError: the package formulae is not installed.
    """
    if not isinstance(family, str) or family not in FAMILIES:
        raise OptionError(
            f"family: expected one of {', '.join(FAMILIES)}, got {family!r}.{nearest(str(family), FAMILIES)}"
        )
    chosen = next(iter(FAMILIES[family].links)) if link is None else link
    if not isinstance(chosen, str) or chosen not in FAMILIES[family].links:
        raise OptionError(
            f"link: the family {family} takes {' or '.join(FAMILIES[family].links)}, got {link!r}."
        )
    if functions is not None and (
        not isinstance(functions, Mapping) or not all(isinstance(k, str) for k in functions)
    ):
        raise OptionError(f"functions: expected {{name: function}}, got {functions!r}.")
    parsed = parse(formula)
    recipe = _Recipe(parsed, family, chosen, dict(functions or {}))
    return recipe.build(data, priors, missing)


class _Recipe:
    """What a formula's problems of any rows have in common."""

    def __init__(self, formula: Formula, family: str, link: str, functions: dict[str, Any]) -> None:
        self.formula, self.family_name, self.link = formula, family, link
        self.family: ResponseFamily = FAMILIES[family]
        self.functions = functions
        response = formula.response
        self.outcome = self._names(response.successes, response.failures)
        self.weights = self._names(response.weights)
        self.others = self._names(response.trials, response.precisions, *formula.parts)

    def _names(self, *parts: Any) -> list[str]:
        """Of columns, or of what a formula may name beside them."""
        found: dict[str, None] = {}
        for part in parts:
            found.update(dict.fromkeys(sorted(map(str, getattr(part, "var_names", ())))))
        return [name for name in found if name]

    def _rows(self, data: Any, missing: MissingRows, names: list[str]) -> tuple[pd.DataFrame, int]:
        """The columns of these names, of those at least that are no functions."""
        title = str(data) if isinstance(data, str | os.PathLike) else "data"
        frame = as_frame(data, names)
        known = {*FUNCTIONS, *self.functions, *environment({}).namespace.keys()[1]}
        wanted = [name for name in names if name in frame.columns or name not in known]
        found, dropped = checked_rows(frame, wanted, missing, title)
        if dropped:
            rows = (
                "1 row that lacks a value is"
                if dropped == 1
                else f"{dropped} rows that lack a value are"
            )
            warnings.warn(f"{title}: {rows} left out", VitoolsWarning, stacklevel=callers_level())
        return found, dropped

    def build(self, data: Any, priors: Any, missing: MissingRows) -> FormulaProblem:
        """On the rows that encodings, scales and priors come from."""
        frame, dropped = self._rows(data, missing, [*self.outcome, *self.weights, *self.others])
        self.design = Design(self.formula, frame, self.functions)
        self.observed = observe(self.formula.response, self.family_name, self.design, frame)
        self.plan: FormulaPlan = plan(self.design.matrices, self.observed, self.family)
        defaults = default_priors(self.plan, self.family)
        sizes = {c.name: len(c.labels) for c in self.plan.coefficients}
        sizes |= {f"{e.name}_sigma": e.size for e in self.plan.effects}
        positive = [n for n in defaults if n.endswith("_sigma") or n in self.family.parameters]
        made = with_given(defaults, priors, sizes, positive)
        self.source = write(
            self.formula.text, self.family_name, self.link, self.plan, self.observed, made
        )
        self.model = FormulaModel(self.source, self.formula.text)
        self.priors = Priors(made, (self._response_words(),))
        return self._problem(self.design.matrices, self.observed, dropped, True)

    def at(self, data: Any, missing: MissingRows) -> FormulaProblem:
        """On other rows."""
        frame = as_frame(data, [*self.outcome, *self.weights, *self.others])
        has_response = set(self._names(self.formula.response.successes)) <= set(frame.columns)
        names = (
            [*self.outcome, *self.weights]
            if has_response
            else self._names(self.formula.response.failures)
        )
        frame, dropped = self._rows(frame, missing, [*names, *self.others])
        observed = observe(
            self.formula.response,
            self.family_name,
            self.design,
            frame,
            known=self.observed,
            is_absent=not has_response,
        )
        return self._problem(self.design.at(frame), observed, dropped, has_response)

    def _problem(
        self, matrices: Matrices, observed: Observed, dropped: int, has_response: bool
    ) -> FormulaProblem:
        problem = FormulaProblem(self.model, **self._arguments(matrices, observed))
        problem.formula, problem.family, problem.link = (
            self.formula.text,
            self.family_name,
            self.link,
        )
        problem.source, problem.priors = self.source, self.priors
        problem.dropped, problem.has_response = dropped, has_response
        problem._recipe = self
        return problem.with_coords(**self._coords(matrices))

    def _arguments(self, matrices: Matrices, observed: Observed) -> dict[str, Tensor | int]:
        """The model's arguments by name."""
        found: dict[str, Any] = {"y": observed.values}
        for name in ("trials", "weights", "precisions"):
            found[name] = getattr(observed, name)
        for term, own in zip(matrices.fixed, self.plan.coefficients, strict=True):
            found[own.columns] = term.values[:, 0] if own.plate is None else term.values
        found["offset"] = matrices.offset
        for block, effects in zip(matrices.blocks, self.plan.effects, strict=True):
            if effects.columns and block.values is not None:
                found[effects.columns] = block.values if effects.size > 1 else block.values[:, 0]
            found[effects.index] = block.codes
            found[effects.count] = len(block.groups)
        tensors: dict[str, Tensor | int] = {}
        for name in arguments(self.plan, self.observed):
            value = found[name]
            tensors[name] = value if isinstance(value, int) else torch.from_numpy(np.array(value))
        return tensors

    @property
    def effects(self) -> dict[str, list[str]]:
        """As of the problem."""
        return {
            block.name + suffix: list(block.labels)
            for block in self.plan.effects
            for suffix in self._suffixes
        }

    @property
    def _suffixes(self) -> list[str]:
        """What the sites of each predictor end in."""
        if self.family.values != "levels":
            return [""]
        return [f"[{level}]" for level in self.observed.levels[1:]]

    def _response_words(self) -> str:
        """How the response follows, in a line."""
        words = f"{self.observed.name}: {self.family.words}"
        words += f" (link {self.link})" if len(self.family.links) > 1 else ""
        levels = self.observed.levels
        if self.family.values == "two" and levels:
            words += f"; 1 is {levels[1]!r}, 0 is {levels[0]!r}"
        elif levels:
            words += f"; levels in order: {', '.join(levels)}"
        return words

    def _coords(self, matrices: Matrices) -> dict[str, list[str]]:
        """Labels of every plate but that of the rows."""
        found = {c.plate: list(c.labels) for c in self.plan.coefficients if c.plate}
        for block, effects in zip(matrices.blocks, self.plan.effects, strict=True):
            found[effects.plate] = list(block.groups)
            if effects.column_plate is None:
                continue
            found[effects.column_plate] = list(effects.labels)
            is_wishart = self.priors[f"{effects.name}_sigma"].distribution == "half-t"
            for name in [effects.name + suffix for suffix in self._suffixes]:
                dims = [f"{name}_dim_0"]
                dims += [f"{name}_precision_dim_{i}" for i in (0, 1) if is_wishart]
                found |= {dim: list(effects.labels) for dim in dims}
        return found
