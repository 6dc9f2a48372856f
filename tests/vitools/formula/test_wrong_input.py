"""What a user can get wrong, and what is said."""

import re

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

from vitools import VitoolsError, cavi, from_formula
from vitools.errors import DataError, NotSupportedError, OptionError, VitoolsWarning

DATA = pd.DataFrame(
    {
        "y": [1.0, 3.0, 2.0, 5.0],
        "x": [0.0, 1.0, 2.0, 4.0],
        "k": [1, 0, 2, 1],
        "n": [2, 2, 2, 2],
        "g": ["a", "a", "b", "b"],
        "word": ["no", "yes", "no", "yes"],
        "three": ["low", "mid", "high", "mid"],
        "one": ["a"] * 4,
        "same": [7.0] * 4,
        "gap": [1.0, np.nan, 2.0, np.nan],
        "inf": [1.0, np.inf, 2.0, 1.0],
        "day": pd.to_datetime(["2020-01-01"] * 4),
        "mixed": ["a", 1, "b", "a"],
    }
)

FORMULAS = [
    # formula, family, kind, words
    ("", "gaussian", OptionError, r"formula: expected text such as 'y ~ x \+ \(1 \| g\)', got ''"),
    (3, "gaussian", OptionError, r"formula: expected text .* got 3"),
    ("y + x", "gaussian", OptionError, "formula 'y [+] x': expected 'response ~ terms'"),
    ("y ~ x ~ g", "gaussian", OptionError, "cannot be read: There is more than one '~'"),
    ("y ~ x | g", "gaussian", OptionError, r"unexpected '\|'; \(1 \| g\) takes its parentheses"),
    ("y ~ (x", "gaussian", OptionError, r"cannot be read: Expect '\)' after expression"),
    ("y ~ `x", "gaussian", OptionError, "a backquote is not closed"),
    ("y ~ x $ 2", "gaussian", OptionError, r"cannot be read: Unexpected character: \$"),
    ("y ~ x^2", "gaussian", OptionError, r"'\^' has no meaning here.*I\(x\*\*2\) or \{x\*\*2\}"),
    ("y ~ .", "gaussian", OptionError, "'.' does not stand for all other columns here"),
    ("y ~ x + .", "gaussian", OptionError, "'.' does not stand for all other columns here"),
    ("y ~ 1/0", "gaussian", OptionError, r"a number is no term.*I\(x / 2\)"),
    ("y ~ x / 0", "gaussian", OptionError, r"a number is no term.*I\(x / 2\)"),
    ("y ~ (0 | g)", "gaussian", OptionError, "expected terms before '|'"),
    ("y ~ x - (1 | g)", "gaussian", OptionError, "a term by group cannot be taken away"),
    ("y ~ (offset(x) | g)", "gaussian", OptionError, "an offset is for all rows"),
    ("y ~ foo", "gaussian", DataError, "data has no column 'foo', which the formula names"),
    ("y ~ X", "gaussian", DataError, r"no column 'X'.*Did you mean 'x'\?"),
    ("y ~ (1 | G)", "gaussian", DataError, r"no column 'G'.*Did you mean 'g'\?"),
    ("Y ~ x", "gaussian", DataError, r"no column 'Y'.*Did you mean 'y'\?"),
    ("y ~ loog(x)", "gaussian", OptionError, "nothing is called 'loog'.*Did you mean 'log'"),
    ("y ~ bs(x)", "gaussian", DataError, "a term cannot be computed: Must specify either 'df'"),
    ("y ~ log(g)", "gaussian", DataError, "a term cannot be computed"),
    ("y ~ log(x)", "gaussian", DataError, r"term 'log\(x\)': not a finite number in row 0"),
    ("log(x) ~ g", "gaussian", DataError, r"response 'log\(x\)': not a finite number in row 0"),
    ("y ~ same", "gaussian", DataError, "column 'same': all values are equal"),
    ("y ~ (same | g)", "gaussian", DataError, r"'same'|all values are equal"),
    ("y ~ one", "gaussian", DataError, "term 'one': one level"),
    (
        "y ~ (1 | one)",
        "gaussian",
        DataError,
        r"groups 'one': expected at least 2 different values, got 1",
    ),
    (
        "y ~ gap",
        "gaussian",
        DataError,
        r"column 'gap': missing in row 1 .* in all gap 2.*missing='drop'",
    ),
    ("y ~ inf", "gaussian", DataError, "column 'inf': not a finite number in row 1"),
    ("y ~ day", "gaussian", DataError, "column 'day': dates"),
    (
        "y ~ mixed",
        "gaussian",
        DataError,
        "column 'mixed': expected numbers or words throughout, got 1",
    ),
    ("same ~ x", "gaussian", DataError, "response 'same': all values are equal"),
    ("word ~ x", "gaussian", DataError, "response 'word': got words.*family='bernoulli'"),
    ("word ~ x", "poisson", DataError, "response 'word': got words"),
    (
        "three ~ x",
        "bernoulli",
        DataError,
        r"expected two different words, got 3 .*'three\[word\] ~",
    ),
    ("three[top] ~ x", "bernoulli", DataError, "no row has the value 'top'"),
    (
        "three[low] ~ x",
        "categorical",
        OptionError,
        "a level in brackets is for the family bernoulli",
    ),
    ("three ~ x", "cumulative", DataError, "the order of 'low', 'mid', 'high' is not known"),
    ("one ~ x", "categorical", DataError, "expected at least 2 levels, got 1"),
    ("y ~ x", "cumulative", None, ""),
    ("x ~ y", "bernoulli", DataError, "response 'x': 2 in row 2 .* bernoulli takes 0 and 1"),
    ("gap ~ x", "gaussian", DataError, "column 'gap': missing"),
    ("I(y / 2) ~ x", "poisson", DataError, "0.5 in row 0 .* poisson takes whole numbers from 0"),
    ("I(-k) ~ x", "negativebinomial", DataError, "-1 in row 0 .* whole numbers from 0"),
    ("I(0*k) ~ x", "poisson", DataError, "all values are 0, whose rate has no logarithm"),
    ("x ~ y", "gamma", DataError, "0 in row 0 .* gamma takes numbers above 0"),
    ("y ~ x", "beta", DataError, "1 in row 0 .* beta takes numbers above 0 and below 1"),
    ("k ~ x", "binomial", OptionError, r"binomial needs the trials of each row: 'p\(k, n\) ~"),
    ("p(k, 1) ~ x", "binomial", DataError, "2 of 1 trials in row 2"),
    ("p(k, x) ~ y", "binomial", DataError, "1 of 0 trials in row 0"),
    ("p(k, n) ~ x", "poisson", OptionError, "has trials, which the family poisson does not know"),
    ("p(k) ~ x", "binomial", OptionError, r"p\(…\) takes 2 arguments, got 1"),
    ("weighted(y, x) ~ g", "gaussian", DataError, "weights: 0 in row 0 .* positive"),
    ("weighted(y, g) ~ x", "gaussian", DataError, "weights: got words"),
    ("precise(k, n) ~ x", "poisson", OptionError, "is for the families gaussian and t"),
    ("y | size(n) ~ x", "gaussian", OptionError, r"expected weights\(…\) or trials\(…\)"),
    (
        "weighted(y, n) | weights(n) ~ x",
        "gaussian",
        OptionError,
        "weights of the response are given twice",
    ),
    (
        "y ~ x",
        "gausian",  # codespell:ignore gausian
        OptionError,
        r"family: expected one of .* got 'gausian'\. Did you mean 'gaussian'\?",
    ),
    ("y ~ x", None, OptionError, "family: expected one of .* got None"),
    ("y ~ x", ["gaussian"], OptionError, r"family: expected one of .* got \['gaussian'\]"),
    ("Intercept ~ x", "gaussian", DataError, "no column 'Intercept'"),
]


@pytest.mark.parametrize(("formula", "family", "kind", "words"), FORMULAS)
def test_a_wrong_formula_is_refused_by_name(formula, family, kind, words, capsys):
    if kind is None:
        from_formula(formula, DATA, family)
        return
    with pytest.raises(kind, match=words) as caught:
        from_formula(formula, DATA, family)
    assert str(caught.value).endswith(".") or str(caught.value).endswith("?")
    assert capsys.readouterr().out == ""


TABLES = [
    (None, OptionError, "data: expected a pandas DataFrame"),
    ([[1, 2]], OptionError, "data: expected a pandas DataFrame"),
    ({"y": [1.0, 2.0], "x": [1.0]}, DataError, "the columns differ in length"),
    ({"y": [1.0, 2.0], "x": 3.0}, DataError, "column 'x': expected one value for each row"),
    ({1: [1.0]}, OptionError, "expected names of columns, got 1"),
    ({"y": [], "x": []}, DataError, "data: no rows"),
    ("nowhere.csv", VitoolsError, "nowhere.csv"),
    (pd.DataFrame([[1, 2]], columns=["y", "y"]), DataError, "column name 'y' appears twice"),
]


@pytest.mark.parametrize(("data", "kind", "words"), TABLES)
def test_a_wrong_table_is_refused(data, kind, words):
    with pytest.raises(kind, match=words):
        from_formula("y ~ x", data)


OPTIONS = [
    ({"link": "probit"}, "link: the family gaussian takes identity, got 'probit'"),
    ({"family": "bernoulli", "link": "log"}, "takes logit or probit or cloglog, got 'log'"),
    ({"link": ["identity"]}, r"takes identity, got \['identity'\]"),
    ({"missing": "mask"}, "missing: expected 'refuse' or 'drop', got 'mask'"),
    ({"functions": ["f"]}, r"functions: expected {name: function}"),
    ({"priors": [1]}, r"priors: expected {name: distribution}, got \[1\]"),
    ({"priors": {"z": dist.Normal(0.0, 1.0)}}, r"nothing is called 'z' \(priors: x, Intercept"),
    ({"priors": {"1|g": dist.Normal(0.0, 1.0)}}, r"Did you mean '1\|g_sigma'\?"),
    ({"priors": {"x": 3.0}}, "'x' expected a distribution of pyro.distributions.* got 3.0"),
    ({"priors": {"x": "Normal(0, 1)"}}, "'x' expected a distribution"),
    ({"priors": {"sigma": dist.Normal(0.0, 1.0)}}, "'sigma' expected a distribution on the positive"),
    ({"priors": {"1|g_sigma": dist.Uniform(-1.0, 1.0)}}, "expected a distribution on the positive"),
    ({"priors": {"x": dist.Beta(1.0, 1.0)}}, "'x' expected a distribution on the real numbers"),
    ({"priors": {"x": dist.Poisson(1.0)}}, "'x' expected a distribution on the real numbers"),
    ({"priors": {"x": dist.Normal(torch.zeros(2), 1.0)}}, r"expected one distribution, got Normal of shape \[2\]"),
    ({"priors": {"x": dist.Normal(0.0, 1.0).to_event(0).mask(True)}}, "one of the scalar distributions"),
    ({"priors": {"x": dist.MultivariateNormal(torch.zeros(2), torch.eye(2))}}, "one of the scalar distributions"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), OPTIONS, ids=str)
def test_a_wrong_argument_is_refused(options, words):
    formula = "word ~ x" if options.get("family") == "bernoulli" else "y ~ x + (1 | g)"
    with pytest.raises(OptionError, match=words):
        from_formula(formula, DATA, **options)


def test_dropped_rows_are_counted():
    with pytest.warns(VitoolsWarning, match=r"data: 2 rows that lack a value are left out\."):
        problem = from_formula("y ~ gap", DATA, missing="drop")
    assert problem.dropped == 2
    assert problem.arguments["y"].tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match=r"every row lacks a value \(z 4\)"):
        from_formula("y ~ z", DATA.assign(z=np.nan), missing="drop")


NEW = [
    ({"x": None}, DataError, "no column 'x'"),
    ({"g": None}, DataError, "no column 'g'"),
    ({"x": [np.nan] * 4}, DataError, "column 'x': missing in row 0"),
    ({"three": ["low", "new", "mid", "high"]}, DataError, "new"),
    ({"x": ["wet", "1", "dry", "wet"]}, DataError, r"term 'x': .* got words \(.*'?dry'?.*\)"),
    ({"word": ["no", "maybe", "no", "no"]}, DataError, "'maybe' is none of the levels"),
]


@pytest.mark.parametrize(("change", "kind", "words"), NEW, ids=str)
def test_wrong_new_rows_are_refused(change, kind, words):
    problem = from_formula("word ~ x + three + (1 | g)", DATA, "bernoulli")
    data = DATA.assign(**{k: v for k, v in change.items() if v is not None})
    data = data.drop(columns=[k for k, v in change.items() if v is None])
    with pytest.raises(kind, match=words):
        problem.at(data)


def test_rows_without_a_response_can_only_be_predicted():
    problem = from_formula("y ~ x + (1 | g)", DATA)
    new = problem.at(DATA.drop(columns="y"))
    assert not new.has_response
    with pytest.raises(NotSupportedError, match=r"given no response 'y', so cavi\(\) has nothing"):
        cavi(new)


def test_without_the_package_the_error_names_the_pip_line(monkeypatch):
    import vitools.formula.syntax as syntax

    def absent(name):
        raise ModuleNotFoundError("no", name="formulae")

    monkeypatch.setattr(syntax, "import_module", absent)
    with pytest.raises(NotSupportedError, match=re.escape("pip install 'vitools[formula]'")):
        from_formula("y ~ x", DATA)
