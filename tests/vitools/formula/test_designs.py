"""Columns of terms against columns written by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from vitools import from_formula
from vitools.errors import DataError, VitoolsWarning

X = np.array([0.0, 1.0, 2.0, 4.0, 3.0, 8.0])
Z = np.array([1.0, -1.0, 2.0, 0.5, 0.0, 3.0])
DATA = pd.DataFrame(
    {
        "y": [1.0, 3.0, 2.0, 5.0, 4.0, 7.0],
        "x": X,
        "z": Z,
        "k": [3, 1, 2, 3, 1, 2],
        "g": ["b", "a", "c", "b", "a", "c"],
        "h": ["v", "u", "u", "u", "v", "v"],
        "height cm": X + 100,
    }
)
B, C = (np.array([float(v == level) for v in DATA.g]) for level in "bc")
A = 1 - B - C
V = np.array([float(v == "v") for v in DATA.h])


def orthogonal(x, degree):
    """Orthonormal polynomials without the constant, the leading coefficient positive."""
    powers = np.vander(x - x.mean(), degree + 1, increasing=True)
    q, r = np.linalg.qr(powers)
    return (q * np.sign(np.diag(r)))[:, 1:]


CASES = {
    "x": {"x": X},
    "center(x)": {"center(x)": X - X.mean()},
    "scale(x)": {"scale(x)": (X - X.mean()) / X.std()},
    "I(x**2)": {"I(x ** 2)": X**2},
    "{x + z}": {"I(x + z)": X + Z},
    "log(x + 1)": {"log(x + 1)": np.log(X + 1)},
    "np.exp(z)": {"np.exp(z)": np.exp(Z)},
    "`height cm`": {"height cm": X + 100},
    "poly(x, 2)": {"poly(x, 2)": orthogonal(X, 2)},
    "g": {"g": np.stack([B, C], 1)},
    "0 + g": {"g": np.stack([A, B, C], 1)},
    "C(k)": {"C(k)": np.stack([DATA.k == 2, DATA.k == 3], 1).astype(float)},
    "C(g, Sum)": {"C(g, Sum)": np.stack([A - C, B - C], 1)},
    "T(g, ref='c')": {"T(g, ref='c')": np.stack([A, B], 1)},
    "x*z": {"x": X, "z": Z, "x:z": X * Z},
    "x*g": {
        "x": X,
        "g": np.stack([B, C], 1),
        "x:g": np.stack([X * B, X * C], 1),
    },
    "x:g": {"x:g": np.stack([X * A, X * B, X * C], 1)},
    "g*h": {
        "g": np.stack([B, C], 1),
        "h": V[:, None],
        "g:h": np.stack([B * V, C * V], 1),
    },
    "(x + z)**2": {"x": X, "z": Z, "x:z": X * Z},
    "x + z - z": {"x": X},
}


def columns(problem):
    """The model's arguments of terms for all rows, by site."""
    made = problem._recipe.plan.coefficients
    return {own.name: problem.arguments[own.columns] for own in made}


@pytest.mark.parametrize("terms", CASES)
def test_terms_for_all_rows(terms):
    problem = from_formula(f"y ~ {terms}", DATA)
    found = columns(problem)
    assert set(found) == set(CASES[terms])
    for name, expected in CASES[terms].items():
        torch.testing.assert_close(found[name], torch.from_numpy(expected))
    assert ("Intercept" in problem.latents) is not terms.startswith("0")


def test_a_spline_spans_cubics_and_adds_up_to_nothing_over_the_rows():
    (basis,) = columns(from_formula("y ~ bs(x, df=4)", DATA)).values()
    cubic = np.stack([X, X**2, X**3], 1)
    with_level = np.column_stack([np.ones(6), basis.numpy()])
    fitted = with_level @ np.linalg.lstsq(with_level, cubic, rcond=None)[0]
    np.testing.assert_allclose(fitted, cubic, atol=1e-9)
    np.testing.assert_allclose(basis.numpy().sum(0), 0, atol=1e-12)


def blocks(problem):
    """Site, groups of rows by label, columns."""
    found = {}
    for own in problem._recipe.plan.effects:
        labels = problem.coords[own.plate]
        rows = [labels[i] for i in problem.arguments[own.index].tolist()]
        found[own.name] = rows, problem.arguments[own.columns] if own.columns else None
    return found


ONES = np.ones(6)
BARS = {
    "(1 | g)": {"1|g": (DATA.g, None)},
    "(x | g)": {"1 + x|g": (DATA.g, np.stack([ONES, X], 1))},
    "(1 + x + z | g)": {"1 + x + z|g": (DATA.g, np.stack([ONES, X, Z], 1))},
    "(0 + x | g)": {"x|g": (DATA.g, X)},
    "(x || g)": {"1|g": (DATA.g, None), "x|g": (DATA.g, X)},
    "(1 | g) + (0 + x | g)": {"1|g": (DATA.g, None), "x|g": (DATA.g, X)},
    "(h | g)": {"1 + h|g": (DATA.g, np.stack([ONES, V], 1))},
    "(0 + h | g)": {"h|g": (DATA.g, np.stack([1 - V, V], 1))},
    "(1 | h/g)": {"1|h": (DATA.h, None), "1|h:g": (DATA.h + ":" + DATA.g, None)},
    "(1 | g) + (1 | h)": {"1|g": (DATA.g, None), "1|h": (DATA.h, None)},
    "(1 | g + h)": {"1|g": (DATA.g, None), "1|h": (DATA.h, None)},
    "(1 | k)": {"1|k": (DATA.k.astype(str), None)},
    "(poly(x, 2) || g)": {
        "1|g": (DATA.g, None),
        "poly(x, 2)[0]|g": (DATA.g, orthogonal(X, 2)[:, 0]),
        "poly(x, 2)[1]|g": (DATA.g, orthogonal(X, 2)[:, 1]),
    },
}


@pytest.mark.parametrize("bar", BARS)
def test_terms_by_group(bar):
    found = blocks(from_formula(f"y ~ z + {bar}", DATA))
    assert set(found) == set(BARS[bar])
    for name, (groups, expected) in BARS[bar].items():
        rows, own = found[name]
        assert rows == list(groups)
        if expected is None:
            assert own is None
        else:
            torch.testing.assert_close(own, torch.from_numpy(expected))


def test_only_cells_that_occur_are_nested_groups():
    problem = from_formula("y ~ (1 | g/k)", DATA)
    assert problem.coords["g:k"] == ["a:1", "b:3", "c:2"]


def test_groups_of_two_columns_whose_words_have_colons_stay_apart():
    words = pd.DataFrame({"y": range(6), "a": ["x", "x:y", "z"] * 2, "b": ["y:z", "z", "q"] * 2})
    problem = from_formula("y ~ (1 | a:b)", words)
    assert problem.coords["a:b"] == ["x:`y:z`", "`x:y`:z", "z:q"]
    assert problem.latents["1|a:b"].shape == (3,)
    again = problem.at(words.iloc[[4, 0]])
    assert again.coords["a:b"] == problem.coords["a:b"]


def test_groups_of_a_categorical_column_keep_its_order():
    ordered = pd.Categorical(DATA.g, categories=["c", "a", "b"])
    assert from_formula("y ~ (1 | g)", DATA.assign(g=ordered)).coords["g"] == ["c", "a", "b"]
    assert from_formula("y ~ x + (1 | k)", DATA.assign(k=[10, 9, 2, 9, 10, 2])).coords["k"] == [
        "2",
        "9",
        "10",
    ]


def test_new_rows_are_encoded_as_the_first_were():
    formula = "y ~ center(x) + scale(z) + poly(x, 2) + g + (z | h)"
    first = from_formula(formula, DATA)
    some = DATA.iloc[[4, 1]]
    again = first.at(some)
    for name, value in columns(first).items():
        torch.testing.assert_close(columns(again)[name], value[[4, 1]])
    assert blocks(again)["1 + z|h"][0] == ["v", "u"]
    torch.testing.assert_close(again.arguments["y"], torch.tensor([4.0, 3.0]))


def test_empty_cells_of_an_interaction_are_left_out():
    data = DATA.iloc[:5].assign(h=["v", "u", "u", "u", "u"])
    with pytest.warns(VitoolsWarning, match=r"term 'g:h': no row has c:v, left out\."):
        problem = from_formula("y ~ g:h", data.assign(x=1.0))
    assert "c:v" not in problem.coords["g:h_level"]
    with pytest.raises(DataError, match=r"term 'g:h': c:v, which no row had that was fitted"):
        problem.at(DATA)


def test_offsets_trials_weights_and_precisions_reach_the_model():
    problem = from_formula("p(k, n) ~ offset(x) + offset(2*z)", DATA.assign(n=4), "binomial")
    torch.testing.assert_close(problem.arguments["offset"], torch.from_numpy(X + 2 * Z))
    torch.testing.assert_close(problem.arguments["trials"], torch.full((6,), 4.0))
    other = from_formula("cbind(k, 4 - k) ~ z", DATA, "binomial")
    torch.testing.assert_close(other.arguments["trials"], torch.full((6,), 4.0))
    for written in ("weighted(y, k)", "y | weights(k)"):
        weights = from_formula(f"{written} ~ z", DATA).arguments["weights"]
        torch.testing.assert_close(weights, torch.from_numpy(DATA.k.to_numpy(float)))
    precise = from_formula("precise(log(y), k) ~ z", DATA)
    torch.testing.assert_close(
        precise.arguments["precisions"], torch.from_numpy(DATA.k.to_numpy(float))
    )
    torch.testing.assert_close(
        precise.arguments["y"], torch.from_numpy(np.log(DATA.y.to_numpy(float)))
    )
