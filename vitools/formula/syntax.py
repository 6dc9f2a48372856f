"""The parts of a formula: response, terms for all rows, terms by group.

``formulae`` reads the text. Its trees are kept, because what it makes of ``(1 + x | g)`` and of
``(1 | g) + (0 + x | g)`` is the same list of terms, and only in the first are a group's level and slope
correlated; ``||`` and brms' ``y | trials(n)`` it does not know.
"""

import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from vitools.errors import NotSupportedError, OptionError, first_words

INSTALL = "pip install 'vitools[formula]'"


@dataclass(frozen=True)
class Response:
    """What stands left of ``~``.

    Attributes:
        text: as it was written.
        successes: the formulae term of the response itself; of counts of trials, that of the successes.
        trials, failures: formulae terms, of counts of trials alone.
        weights: of rows, each of which counts as that many.
        precisions: of rows, in units of 1/sigma².
        level: the value that counts as a success, from ``y[level]``.
    """

    text: str
    successes: Any
    trials: Any = None
    failures: Any = None
    weights: Any = None
    precisions: Any = None
    level: Any = None


@dataclass(frozen=True)
class Bar:
    """``(terms | factor)``: formulae's model of the terms, and its term of the factor."""

    terms: Any
    factor: Any
    is_correlated: bool


@dataclass(frozen=True)
class Formula:
    """A formula, taken apart.

    Attributes:
        common: formulae's model of the terms for all rows, offsets among them.
        bars: the terms by group.
    """

    text: str
    response: Response
    common: Any
    bars: tuple[Bar, ...] = field(default=())

    @property
    def parts(self) -> list[Any]:
        """Everything that names columns of the table but for the response."""
        return [self.common, *(part for bar in self.bars for part in (bar.terms, bar.factor))]


def library(name: str = "") -> Any:
    """A module of ``formulae``, which is an extra."""
    try:
        return import_module(f"formulae.{name}" if name else "formulae")
    except ModuleNotFoundError as error:
        if error.name != "formulae":
            raise
        raise NotSupportedError(
            f"formulas are read by the package formulae, which is not installed: {INSTALL}."
        ) from error


def parse(text: str) -> Formula:
    """The parts of ``response ~ terms``.

    >>> formula = parse("y ~ x + (x | g) + (1 || h)")
    >>> [(sorted(bar.terms.var_names), bar.factor.name, bar.is_correlated) for bar in formula.bars]
    [(['x'], 'g', True), ([], 'h', False)]
    """
    if not isinstance(text, str) or not text.strip():
        raise OptionError(f"formula: expected text such as 'y ~ x + (1 | g)', got {text!r}.")
    library()
    _refuse_other_notation(text)
    try:
        parser = library("parser").Parser(_tokens(text))
        tree = parser.parse()
        if not parser.at_end():  # what it does not understand it leaves
            raise ValueError(f"unexpected '{parser.peek().lexeme}'; (1 | g) takes its parentheses")
    except OptionError:
        raise
    except Exception as error:  # of several kinds, some of them Python's own
        raise OptionError(
            f"formula '{text}' cannot be read: {first_words(error).rstrip('.')}. Names with other "
            "signs than letters, digits, '_' and '.' go between backquotes."
        ) from error
    expr = library("expr")
    if not isinstance(tree, expr.Binary) or tree.operator.kind != "TILDE":
        raise OptionError(f"formula '{text}': expected 'response ~ terms'.")
    common, bars = _sorted_out(tree.right, text)
    return Formula(text.strip(), _response(tree.left, text), common, tuple(bars))


def _refuse_other_notation(text: str) -> None:
    """Raise for what R's formulas have and these have not."""
    bare = re.sub(r"`[^`]*`", "x", text)
    if "^" in bare:
        raise OptionError(
            f"formula '{text}': '^' has no meaning here. A power of a column is I(x**2) or {{x**2}}; all "
            "interactions of several terms up to order two are (a + b)**2."
        )
    if re.search(r"(^|[~+\-*/:|(\s])\.($|[~+\-*/:|)\s])", bare):
        raise OptionError(
            f"formula '{text}': '.' does not stand for all other columns here. Name the columns, joined by +."
        )


def _tokens(text: str) -> list[Any]:
    """Those of formulae, two bars in a row made one that knows it."""
    if text.count("`") % 2:
        raise OptionError(f"formula '{text}': a backquote is not closed.")
    joined: list[Any] = []
    for token in library("scanner").Scanner(text).scan():
        if token.kind == "PIPE" and joined and joined[-1].kind == "PIPE":
            joined[-1] = library("token").Token("PIPE", "||")
        else:
            joined.append(token)
    return joined


def _sorted_out(tree: Any, text: str) -> tuple[Any, list[Bar]]:
    """The terms of a sum that are for all rows, as one model, and those by group."""
    expr, terms = library("expr"), library("terms")
    bars: list[Bar] = []

    def is_bar(knot: Any) -> bool:
        return isinstance(knot, expr.Binary) and knot.operator.kind == "PIPE"

    def inside(knot: Any) -> Any:
        while isinstance(knot, expr.Grouping):
            knot = knot.expression
        return knot

    def walk(knot: Any) -> Any:
        """The tree without bars; None where nothing is left."""
        bare = inside(knot)
        if is_bar(bare):
            bars.extend(_bars(bare, text))
            return None
        if isinstance(bare, expr.Binary) and bare.operator.kind in ("PLUS", "MINUS"):
            left, right = walk(bare.left), walk(bare.right)
            if bare.operator.kind == "MINUS" and right is None:
                raise OptionError(f"formula '{text}': a term by group cannot be taken away.")
            if left is None or right is None:
                return left or right
            return expr.Binary(left, bare.operator, right)
        return knot

    left = walk(tree)
    return _model(_resolved(left, text) if left is not None else terms.Intercept()), bars


def _bars(knot: Any, text: str) -> list[Bar]:
    """``(terms | a / b)`` is one for ``a`` and one for ``a:b``."""
    terms = library("terms")
    inner = _with_intercept(knot.left)  # implicit, as in the whole formula
    factors = _resolved(knot.right, text)
    found = []
    for factor in _model(factors).common_terms:
        if not isinstance(factor, terms.Term):
            raise OptionError(
                f"formula '{text}': expected the name of a column of groups behind '|', got {factor!s}."
            )
        model = _model(_resolved(inner, text))
        if model.group_terms or not model.common_terms:
            raise OptionError(f"formula '{text}': expected terms before '|', such as (1 + x | g).")
        found.append(Bar(model, factor, knot.operator.lexeme != "||"))
    return found


def _with_intercept(tree: Any) -> Any:
    """``1 +`` before the first term of a sum, where a later ``0`` takes it away again."""
    expr, token = library("expr"), library("token").Token
    while isinstance(tree, expr.Grouping):
        tree = tree.expression
    if isinstance(tree, expr.Binary) and tree.operator.kind in ("PLUS", "MINUS"):
        return expr.Binary(_with_intercept(tree.left), tree.operator, tree.right)
    return expr.Binary(expr.Literal(1), token("PLUS", "+"), tree)


def _model(resolved: Any) -> Any:
    """A formulae model, whatever one term or several came to."""
    terms = library("terms")
    if not isinstance(resolved, terms.Model):
        resolved = terms.Model(resolved)
    kept = [t for t in resolved.common_terms if not isinstance(t, terms.NegatedIntercept)]
    resolved.common_terms = kept
    return resolved


def _resolved(tree: Any, text: str) -> Any:
    try:
        return library("resolver").Resolver(tree).resolve()
    except TypeError as error:
        raise OptionError(
            f"formula '{text}': a number is no term but for 0 and 1, without and with an intercept, and signs "
            f"between terms are no arithmetic ({first_words(error).rstrip('.')}). Arithmetic stands in I(…) or "
            "{…}: I(x / 2)."
        ) from error
    except Exception as error:
        raise OptionError(f"formula '{text}': {first_words(error).rstrip('.')}.") from error


# ---- the response --------------------------------------------------------------------------

_PROPORTIONS = ("p", "prop", "proportion")


def _response(tree: Any, text: str) -> Response:
    """``y``, ``f(y)``, ``y[level]``, ``p(k, n)``, ``cbind(k, m)``, ``weighted(…)``, ``y | trials(n)``."""
    expr = library("expr")
    while isinstance(tree, expr.Grouping):
        tree = tree.expression
    if isinstance(tree, expr.Binary) and tree.operator.kind == "PIPE":
        inner = _response(tree.left, text)
        return _with_additions(inner, tree.right, text)
    name = _callee(tree)
    if name in ("weighted", "precise"):
        value, by = _arguments(tree, 2, text)
        inner = _response(value, text)
        part = {"weighted": "weights", "precise": "precisions"}[name]
        return _extended(inner, text, **{part: _term(by, text)})
    if name in _PROPORTIONS or name == "cbind":
        first, second = _arguments(tree, 2, text)
        part = "failures" if name == "cbind" else "trials"
        return Response(_words(first), _term(first, text), **{part: _term(second, text)})
    if isinstance(tree, expr.Variable) and tree.level is not None:
        level = tree.level.value
        return Response(
            f"{tree.name.lexeme}[{level}]",
            _resolved(expr.Variable(tree.name, None), text),
            level=level,
        )
    return Response(_words(tree), _term(tree, text))


def _with_additions(inner: Response, tree: Any, text: str) -> Response:
    """brms' ``y | weights(w) + trials(n)``."""
    expr = library("expr")
    if isinstance(tree, expr.Binary) and tree.operator.kind == "PLUS":
        return _with_additions(_with_additions(inner, tree.left, text), tree.right, text)
    name = _callee(tree)
    if name not in ("weights", "trials"):
        raise OptionError(
            f"formula '{text}': behind the bar of a response expected weights(…) or trials(…)."
        )
    (by,) = _arguments(tree, 1, text)
    return _extended(inner, text, **{name: _term(by, text)})


def _extended(response: Response, text: str, **parts: Any) -> Response:
    found = {k: v for k, v in vars(response).items() if v is not None}
    for name in parts:
        if name in found or (name == "trials" and "failures" in found):
            raise OptionError(f"formula '{text}': {name} of the response are given twice.")
    return Response(**found | parts)


def _callee(tree: Any) -> str | None:
    return tree.callee.name.lexeme if isinstance(tree, library("expr").Call) else None


def _arguments(tree: Any, count: int, text: str) -> list[Any]:
    if len(tree.args) != count:
        raise OptionError(
            f"formula '{text}': {_callee(tree)}(…) takes {count} argument{'s' * (count > 1)}, got "
            f"{len(tree.args)}."
        )
    return list(tree.args)


def _term(tree: Any, text: str) -> Any:
    """A term with one component; a number stands for itself."""
    expr, terms = library("expr"), library("terms")
    if isinstance(tree, expr.Literal):
        return tree.value
    if isinstance(tree, expr.Binary):  # arithmetic, as in cbind(k, n - k)
        token = library("token").Token
        tree = expr.Call(expr.Variable(token("IDENTIFIER", "I"), None), [tree])
    found = _resolved(tree, text)
    if not isinstance(found, terms.Term) or len(found.components) != 1:
        raise OptionError(f"formula '{text}': expected one column as the response.")
    return found


def _words(tree: Any) -> str:
    """A response as it is called in messages."""
    found = library("resolver").Resolver(tree).resolve()
    return str(getattr(found, "name", found))
