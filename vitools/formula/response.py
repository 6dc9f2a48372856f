"""The response: checked against its family, words and levels as codes, weights and trials."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vitools.errors import DataError, OptionError
from vitools.formula.design import Design, _is_box, _label
from vitools.formula.families import FAMILIES, ResponseFamily
from vitools.formula.syntax import Response
from vitools.problem.sites import listed


@dataclass(frozen=True)
class Observed:
    """The response of some rows.

    Attributes:
        values: [N]; codes where there are levels.
        levels: of a categorical or ordered response; of two words, failure and success.
        trials, weights, precisions: [N], where the response comes with them.
    """

    name: str
    values: np.ndarray
    levels: tuple[str, ...] = ()
    trials: np.ndarray | None = None
    weights: np.ndarray | None = None
    precisions: np.ndarray | None = None

    def location(self, family: ResponseFamily, offset: np.ndarray | None) -> tuple[float, float]:
        """Mean and standard deviation on the scale of the predictor."""
        if family.is_scaled:
            rest = self.values - (0 if offset is None else offset)
            spread = float(rest.std())
            if not spread > 0:
                raise DataError(
                    f"response '{self.name}': all values are equal, which leaves nothing to explain."
                )
            return float(rest.mean()), spread
        if "log" in family.links:
            exposure = 1.0 if offset is None else float(np.exp(offset).mean())
            mean = float(self.values.mean())
            if not mean > 0:
                raise DataError(
                    f"response '{self.name}': all values are 0, whose rate has no logarithm."
                )
            return float(np.log(mean / exposure)), 1.0
        return 0.0, 1.0


def observe(
    response: Response,
    family_name: str,
    design: Design,
    frame: pd.DataFrame,
    *,
    known: Observed | None = None,
    is_absent: bool = False,
) -> Observed:
    """The response of the rows of a frame.

    Args:
        known: of the rows that fixed its levels, where these are others.
        is_absent: whether the frame lacks it; a value that stands in means nothing then.

    Raises:
        DataError: a value that the family cannot have, with its row.
        OptionError: trials without counts, or counts without trials.
    """
    name, family = response.text, FAMILIES[family_name]
    if is_absent and known is not None:
        values, levels = np.full(len(frame), known.values[0]), known.levels
        values = 0 * values if family.takes_trials else values
        trials = _trials(response, values, design, frame) if family.takes_trials else None
        weights = None if known.weights is None else np.ones(len(frame))
        precisions = _positive(response.precisions, "precisions", design, frame)
        return Observed(name, values, levels, trials, weights, precisions)
    raw = _column(response.successes, design, frame)
    if family.takes_trials and response.trials is None and response.failures is None:
        raise OptionError(
            f"response '{name}': the family binomial needs the trials of each row: 'p({name}, n) ~ …' or 'cbind({name}, failures) "
            "~ …'. For a response of 0 and 1: family='bernoulli'."
        )
    if not family.takes_trials and (response.trials is not None or response.failures is not None):
        raise OptionError(
            f"response '{name}' has trials, which the family {family_name} does not know. Use family='binomial'."
        )
    if response.precisions is not None and not family.is_scaled:
        raise OptionError(
            f"precise({name}, …) is for the families gaussian and t, not for {family_name}. To let a row count as "
            "several: weighted(…)."
        )
    if response.level is not None and family.values != "two":
        raise OptionError(
            f"response '{name}': a level in brackets is for the family bernoulli, not for {family_name}."
        )
    values, levels = _coded(raw, response, family_name, family, known)
    wrong = ~family.fits(values)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"response '{name}': {values[row]:g} in row {row} (counting from 0), and the family {family_name} takes "
            f"{family.support}.",
            row=row,
        )
    trials = None
    if family.takes_trials:
        trials = _trials(response, values, design, frame)
    return Observed(
        name,
        values,
        levels,
        trials,
        _positive(response.weights, "weights", design, frame),
        _positive(response.precisions, "precisions", design, frame),
    )


def _column(term: Any, design: Design, frame: pd.DataFrame) -> Any:
    """A term's values before any encoding: a series or an array, [N]."""
    if isinstance(term, int | float):
        return np.full(len(frame), float(term))
    (component,) = term.components
    if hasattr(component, "call"):
        values = design.calling(lambda: component.call.eval(frame, design.env), frame)
        if _is_box(values):
            return pd.Series(
                pd.Categorical(values.data, values.levels, ordered=values.levels is not None)
            )
    else:
        values = frame[component.name]
    if np.ndim(values) != 1 or len(values) != len(frame):
        raise DataError(f"'{component.name}': expected one value for each row.")
    return pd.Series(values)


def _numbers(values: Any, name: str, wanted: str) -> np.ndarray:
    series = pd.Series(values)
    if isinstance(series.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(series):
        raise DataError(f"{name}: got words ({_first_words(series)}), and {wanted}.")
    found = series.to_numpy(dtype=float)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise DataError(
            f"{name}: not a finite number in row {row} (counting from 0); the logarithm of 0, a division by 0?",
            row=row,
        )
    return found


def _first_words(series: pd.Series) -> str:
    return listed([repr(str(v)) for v in dict.fromkeys(series)], 3)


def _coded(
    raw: Any, response: Response, family_name: str, family: ResponseFamily, earlier: Observed | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    name = response.text
    series = pd.Series(raw)
    is_category = isinstance(series.dtype, pd.CategoricalDtype)
    is_words = is_category or not pd.api.types.is_numeric_dtype(series)
    if family.values == "numbers":
        advice = "For words take family='bernoulli' (two of them) or 'categorical'"
        wanted = f"the family {family_name} takes {family.support}. {advice}"
        return _numbers(series, f"response '{name}'", wanted), ()
    if family.values == "two" and response.level is not None:
        labels = series.map(_label) if not is_category else series.astype(object).map(_label)
        if earlier is None and not (labels == str(response.level)).any():
            raise DataError(
                f"response '{name}': no row has the value '{response.level}' (values: "
                f"{_first_words(series)})."
            )
        rest = sorted(set(labels) - {str(response.level)})
        other = rest[0] if len(rest) == 1 else f"not {response.level}"
        levels = (other, str(response.level)) if earlier is None else earlier.levels
        return (labels == str(response.level)).to_numpy(dtype=float), levels
    if earlier is not None and earlier.levels:
        code = {label: float(i) for i, label in enumerate(earlier.levels)}
        labels = series.astype(object).map(_label)
        new = [label for label in dict.fromkeys(labels) if label not in code]
        if new:
            raise DataError(
                f"response '{name}': '{new[0]}' is none of the levels that the fitted rows have "
                f"({listed(list(earlier.levels))})."
            )
        return labels.map(code).to_numpy(dtype=float), earlier.levels
    if not is_words and family.values == "two":
        return _numbers(series, f"response '{name}'", ""), ()
    if is_category:
        known = series.cat.remove_unused_categories().cat.categories.tolist()
    elif is_words and family.values == "ordered":
        raise DataError(
            f"response '{name}': the order of {_first_words(series)} is not known. Give numbers, or an ordered "
            "column: pandas.Categorical(…, categories=[…], ordered=True)."
        )
    else:
        known = sorted(set(series.tolist()))
        if not is_words and any(v != round(v) for v in known):
            odd = next(v for v in known if v != round(v))
            raise DataError(
                f"response '{name}': {odd:g}, and the family {family_name} takes {family.support}."
            )
    if family.values == "ordered" and is_category and not series.cat.ordered:
        raise DataError(
            f"response '{name}': a categorical column without an order, and the family cumulative needs one: "
            "pandas.Categorical(…, ordered=True)."
        )
    if family.values == "two" and len(known) != 2:
        raise DataError(
            f"response '{name}': expected two different words, got {len(known)} ({listed([str(k) for k in known])}). Say which counts as 1, "
            f"'{name}[word] ~ …', or take family='categorical'."
        )
    if len(known) < 2:
        raise DataError(f"response '{name}': expected at least 2 levels, got {len(known)}.")
    code = {v: float(i) for i, v in enumerate(known)}
    return series.map(code).to_numpy(dtype=float), tuple(_label(v) for v in known)


def _trials(
    response: Response, values: np.ndarray, design: Design, frame: pd.DataFrame
) -> np.ndarray:
    term = response.failures if response.trials is None else response.trials
    what = "failures" if response.trials is None else "trials"
    found = _numbers(_column(term, design, frame), what, "whole numbers from 0 are expected")
    odd = (found < 0) | (found != np.round(found))
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise DataError(
            f"{what}: {found[row]:g} in row {row} (counting from 0); expected whole numbers from 0.",
            row=row,
        )
    trials = values + found if response.trials is None else found
    wrong = values > trials
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"response '{response.text}': {values[row]:g} of {trials[row]:g} trials in row {row} (counting from 0).",
            row=row,
        )
    return trials


def _positive(term: Any, what: str, design: Design, frame: pd.DataFrame) -> np.ndarray | None:
    if term is None:
        return None
    found = _numbers(_column(term, design, frame), what, "positive numbers are expected")
    if not (found > 0).all():
        row = int(np.flatnonzero(~(found > 0))[0])
        raise DataError(
            f"{what}: {found[row]:g} in row {row} (counting from 0); expected positive numbers.",
            row=row,
        )
    return found
