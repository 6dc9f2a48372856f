"""Models of the user's own and their data: what is understood, and how mistakes are answered."""

import math
import re

import numpy as np
import pytest
import torch

from vitools.cli.target import open_target

MODELS = """
from __future__ import annotations

import dataclasses

import pyro
import pyro.distributions as dist
import torch


@dataclasses.dataclass
class Prior:
    a: float = 1.0


def coin(heads):
    one = heads.new_ones(())
    p = pyro.sample("p", dist.Beta(one, one))
    with pyro.plate("flips", len(heads)):
        pyro.sample("obs", dist.Bernoulli(p), obs=heads)


def coin_of_any_flips(**columns):
    coin(columns["heads"])


def coin_of_nothing_else(heads, /):
    coin(heads)


def coin_or_prior(heads=None):
    if heads is not None:
        coin(heads)


def line(x, y):
    slope = pyro.sample("slope", dist.Normal(x.new_zeros(()), x.new_ones(())))
    with pyro.plate("rows", len(x)):
        pyro.sample("obs", dist.Normal(slope * x, 1.0), obs=y)


def columns_of(table, scale=1.0):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(table.shape[1]), scale).to_event(1))
    with pyro.plate("rows", len(table)):
        pyro.sample("obs", dist.Normal(mean, 1.0).to_event(1), obs=table)


def groups(y, group):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("obs", dist.Normal(mean[group], 1.0), obs=y)


class Module(pyro.nn.PyroModule):
    def forward(self, heads):
        coin(heads)


module = Module()
"""


@pytest.fixture
def models(folder):
    (folder / "mymodels.py").write_text(MODELS)
    return folder


def fit(vitools, model, data):
    """Mean and sd of each entry, as printed by an exact fit."""
    result = vitools("fit", f"mymodels.py:{model}", "--data", data, "--method", "exact")
    assert result.exit_code == 0, result.output
    lines = re.findall(r"^(\w+(?:\[\d+\])?) +(\S+) +(\S+)$", result.stdout, re.MULTILINE)
    return {name: (float(mean), float(sd)) for name, mean, sd in lines if name != "site"}


def close(mean, sd):
    """Printed with at least two digits."""
    return pytest.approx((mean, sd), rel=0.05)


# ---- what is understood ----------------------------------------------------------------


@pytest.mark.parametrize("model", ["coin", "coin_of_any_flips", "coin_or_prior", "module"])
def test_a_csv_column_becomes_the_argument_of_its_name(vitools, models, model):
    (models / "flips.csv").write_text("day,heads\n1,1\n2,0\n3,1\n")
    assert fit(vitools, model, "flips.csv") == {"p": close(3 / 5, math.sqrt(6 / 25 / 6))}


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8"])
def test_npz_arrays_become_the_arguments_of_their_names(vitools, models, dtype):
    x, y = np.array([1.0, 2.0, 3.0], dtype), np.array([2.0, 3.0, 5.0], dtype)
    np.savez(models / "rows.npz", y=y, x=x)
    variance = 1 / (1 + x @ x)
    expected = close(x @ y * variance, math.sqrt(variance))
    assert fit(vitools, "line", "rows.npz") == {"slope": expected}


def test_npz_arrays_keep_their_dtype_and_shape(models):
    np.savez("rows.npz", y=np.ones(3, "f4"), group=np.array([0, 1, 1], "i4"))
    arguments = open_target("mymodels.py:groups", models / "rows.npz", 0).problem.kwargs
    assert arguments["y"].dtype == torch.float32
    assert arguments["group"].dtype == torch.int32
    np.savez("table.npz", table=np.ones((4, 3)))
    problem = open_target("mymodels.py:columns_of", models / "table.npz", 0).problem
    assert problem.latents["mean"].shape == (3,)


def test_the_one_argument_without_a_column_gets_the_table_of_the_other_columns(vitools, models):
    (models / "table.csv").write_text("x,y\n1,2\n2,3\n3,7\n")
    sd = math.sqrt(1 / 4)
    expected = {"mean[0]": close(6 / 4, sd), "mean[1]": close(12 / 4, sd)}
    assert fit(vitools, "columns_of", "table.csv") == expected


def test_columns_with_a_name_stay_out_of_the_table(models):
    (models / "data.csv").write_text("age,target,bmi\n1,9.5,2\n3,8.5,4\n5,1.5,6\n")
    target = open_target("regression", models / "data.csv", 0)
    assert target.problem.kwargs["features"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert target.problem.kwargs["target"].tolist() == [9.5, 8.5, 1.5]


def test_a_lone_column_is_the_argument_whatever_its_name(vitools, models):
    (models / "flips.csv").write_text("landed\n1\n0\n1\n")
    assert fit(vitools, "coin", "flips.csv")["p"] == close(3 / 5, math.sqrt(6 / 25 / 6))


def test_whole_numbers_of_a_csv_serve_as_indices(vitools, models):
    (models / "data.csv").write_text("y,group\n1.5,0\n2.5,1\n3.5,1\n")
    expected = {"mean[0]": close(1.5 / 2, 0.5**0.5), "mean[1]": close(6 / 3, 3**-0.5)}
    assert fit(vitools, "groups", "data.csv") == expected


@pytest.mark.usefixtures("float32_by_default")
def test_numbers_of_a_csv_meet_tensors_the_model_makes(models):
    (models / "mixed.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "def model(x, group, y):\n"
        "    w = pyro.sample('w', dist.Normal(torch.zeros(2), 1.0).to_event(1))\n"
        "    with pyro.plate('rows', len(y)):\n"
        "        pyro.sample('obs', dist.Normal(torch.stack([x, x * x], -1) @ w + w[group], 1.0),"
        " obs=y)\n"
    )
    (models / "data.csv").write_text("x,group,y\n1.5,0,1\n2.5,1,2\n3.5,1,3\n")
    arguments = open_target("mixed.py:model", models / "data.csv", 0).problem.kwargs
    types = {name: value.dtype for name, value in arguments.items()}
    assert types["x"] is torch.float32
    assert types["group"] is torch.int64


def test_a_shipped_model_takes_data_of_ones_own(models):
    (models / "rolls.csv").write_text("first,second\n0,5\n3,2\n1,1\n")
    problem = open_target("two-dice", models / "rolls.csv", 0).problem
    assert problem.kwargs["rolls"].tolist() == [[0, 5], [3, 2], [1, 1]]
    assert problem.kwargs["rolls"].dtype == torch.int64
    np.savez("images.npz", images=np.eye(64)[:5])
    target = open_target("vae", models / "images.npz", 0)
    assert target.problem.latents["z"].shape[0] == 5
    assert target.guide is not None


def test_a_model_may_import_its_neighbours_as_it_runs(vitools, models):
    (models / "flips.csv").write_text("heads\n1\n0\n1\n")
    (models / "models").mkdir()
    (models / "models" / "neighbour_of_late.py").write_text("bias = 0.5\n")
    (models / "models" / "random.py").write_text(
        "def late(heads):\n"
        "    import neighbour_of_late, pyro, pyro.distributions as dist\n"
        "    p = pyro.sample('p', dist.Beta(1.0, 1.0))\n"
        "    with pyro.plate('flips', len(heads)):\n"
        "        pyro.sample('obs', dist.Bernoulli(p), obs=heads)\n"
    )
    result = vitools("fit", "models/random.py:late", "--data", "flips.csv", "--method", "exact")
    assert result.exit_code == 0, result.output


def test_the_head_of_a_report_is_what_was_typed(vitools, models):
    (models / "flips.csv").write_text("heads\n1\n0\n1\n")
    arguments = ("--data", "flips.csv", "--methods", "exact", "--quiet")
    result = vitools("compare", "mymodels.py:coin", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("mymodels.py:coin: data from flips.csv\n")


# ---- models that cannot be opened ------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "cion",
            ["no shipped model 'cion'", "two-dice", "Did you mean 'coin'?", "file.py:function"],
        ),
        ("mymodels.py", ["expected path/to/file.py:function", "e.g. mymodels.py:model"]),
        (":coin", ["expected path/to/file.py:function"]),
        ("mymodel.py:coin", ["no file 'mymodel.py'", "Did you mean 'mymodels.py'?"]),
        ("nowhere/m.py:coin", ["no file", "m.py"]),
        (".:coin", ["no file '.'", "expected the Python file"]),
        ("notes.txt:coin", ["'notes.txt' does not end in .py", "Rename"]),
        (
            "mymodels.py:cion",
            ["has no function 'cion' (functions: coin, ", "line", "Did you mean 'coin'?"],
        ),
        ("mymodels.py:Prior", ["'Prior' in 'mymodels.py' is a class", "mymodels.py:model"]),
        ("empty.py:coin", ["has no function 'coin' (functions: none)"]),
        ("mymodels.py:coin_of_nothing_else", ["argument 'heads'", "positional only", "'/'"]),
        ("broken.py:coin", ["'broken.py' raised ModuleNotFoundError on import", "no_such_module"]),
        ("unfinished.py:coin", ["'unfinished.py' raised SyntaxError on import", "line 1"]),
        ("leaving.py:coin", ["'leaving.py' raised SystemExit on import"]),
    ],
)
def test_a_model_that_cannot_be_opened_is_refused(refused, models, model, words):
    (models / "notes.txt").write_text("coin")
    (models / "empty.py").write_text("")
    (models / "broken.py").write_text("import no_such_module\n")
    (models / "unfinished.py").write_text("def coin(:\n")
    (models / "leaving.py").write_text("raise SystemExit\n")
    (models / "flips.csv").write_text("heads\n1\n")
    message = refused("fit", model, "--data", "flips.csv", "--out", "fits")
    for word in words:
        assert word in message
    assert not (models / "fits").exists()


def test_a_model_without_its_data_is_told_how_to_get_them(refused, models):
    message = refused("fit", "mymodels.py:line")
    assert message.startswith("mymodels.py:line needs data for 'x', 'y', got none.")
    assert "--data FILE" in message


# ---- data that cannot be used ----------------------------------------------------------

BAD_TABLES = {
    "missing column": ("x,z\n1,2\n", ["has no column 'y'", "columns: x, z", "arguments: x, y"]),
    "misspelt column": ("x,yy\n1,2\n", ["has no column 'y'", "Did you mean 'yy'?"]),
    "NaN cell": ("x,y\n1,2\n2,nan\n", ["line 3, column 'y'", "nan is not finite", "remove"]),
    "blank cell": ("x,y\n1,2\n2,\n", ["line 3, column 'y'", "blank", "remove"]),
    "word": ("x,y\n1,2\n2,3\n4,tall\n", ["line 4, column 'y'", "expected a number, got 'tall'"]),
    "ragged row": ("x,y\n1,2\n2\n", ["line 3", "1 cells, expected 2"]),
    "no header": ("1,2\n3,4\n", ["line 1", "expected the names of the columns, got numbers"]),
    "no rows": ("x,y\n", ["has column names but no rows"]),
    "empty file": ("", ["is empty"]),
}


@pytest.mark.parametrize("mistake", BAD_TABLES)
def test_a_bad_table_is_refused_by_file_line_and_column(refused, models, mistake):
    text, words = BAD_TABLES[mistake]
    (models / "rows.csv").write_text(text)
    message = refused("fit", "mymodels.py:line", "--data", "rows.csv")
    assert "rows.csv" in message
    for word in words:
        assert word in message


def test_columns_that_are_no_arguments_are_refused_though_all_have_defaults(refused, models):
    (models / "rows.csv").write_text("x,y\n1,2\n")
    message = refused("fit", "mymodels.py:coin_or_prior", "--data", "rows.csv")
    assert "has no column 'heads'" in message
    assert "(columns: x, y; arguments: heads)" in message


def test_a_column_of_almost_an_arguments_name_is_not_passed_over(refused, vitools, models):
    """The model would run without it, by its default; a column of another name may stay."""
    (models / "rates.py").write_text(
        "import pyro, torch\n"
        "import pyro.distributions as dist\n"
        "def counted(counts, exposure=torch.tensor(1.0).double()):\n"
        "    rate = pyro.sample('rate', dist.Gamma(torch.tensor(1.0).double(), 1.0))\n"
        "    with pyro.plate('rows', len(counts)):\n"
        "        pyro.sample('n', dist.Poisson(rate * exposure), obs=counts)\n"
    )
    (models / "rows.csv").write_text("counts,Exposur\n1,2\n3,2\n")
    message = refused("fit", "rates.py:counted", "--data", "rows.csv")
    assert "'rows.csv' has a column 'Exposur', which rates.py:counted does not take" in message
    assert "Did you mean 'exposure'?" in message
    (models / "rows.csv").write_text("counts,county\n1,2\n3,2\n")
    assert vitools("explain", "rates.py:counted", "--data", "rows.csv").exit_code == 0


def test_a_file_that_is_not_there_or_of_no_known_kind_is_refused(refused, models):
    (models / "rows.csv").write_text("x,y\n1,2\n")
    (models / "rows.txt").write_text("x,y\n1,2\n")
    (models / "rows.npz").write_text("x,y\n1,2\n")
    (models / "folder.csv").mkdir()
    for name, words in {
        "row.csv": ["row.csv does not exist", "did you mean rows.csv?"],
        "rows.txt": ["rows.txt", "'.txt'", ".csv, .npz"],
        "rows.npz": ["rows.npz is not an npz archive", "numpy.savez"],
        "folder.csv": ["folder.csv is a folder", "name a file inside"],
    }.items():
        message = refused("fit", "mymodels.py:line", "--data", name)
        for word in words:
            assert word in message


def test_numbers_torch_has_no_dtype_for_are_refused(refused, models):
    if np.dtype(np.longdouble) == np.dtype(np.float64):
        pytest.skip("long double is float64 on this platform")
    np.savez(models / "flips.npz", heads=np.ones(3, np.longdouble))
    message = refused("fit", "mymodels.py:coin", "--data", "flips.npz")
    assert "'flips.npz', column 'heads': torch has no dtype for" in message
    assert "Store it as float64" in message


def test_an_observation_outside_the_support_is_refused_with_its_file(refused, models):
    (models / "flips.csv").write_text("heads\n1\n2\n")
    message = refused("fit", "mymodels.py:coin", "--data", "flips.csv")
    assert "site 'obs'" in message
    assert "got 2.0 at index 1" in message
    assert message.endswith("From 'flips.csv' the model was given heads (float64 [2]).")


def test_columns_of_the_wrong_dtype_or_shape_are_told(refused, models):
    np.savez(models / "flips.npz", heads=np.array([0, 1, 1]))
    message = refused("fit", "mymodels.py:coin", "--data", "flips.npz")
    assert "model 'coin' raised" in message
    assert message.endswith("the model was given heads (int64 [3]).")
    (models / "table.csv").write_text("a,b\n0,1\n1,1\n0,0\n")
    message = refused("fit", "mymodels.py:coin", "--data", "table.csv")
    assert "expects observations of shape (3,), got (3, 2)" in message
    assert message.endswith("the model was given heads (float64 [3, 2]).")


# ---- guides of the user's own ------------------------------------------------------------


def test_a_guide_of_ones_own_is_fitted(vitools, models):
    (models / "guides.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "from mymodels import coin\n"
        "def guide(heads):\n"
        "    positive = dist.constraints.positive\n"
        "    a = pyro.param('a', torch.tensor(2.0), constraint=positive)\n"
        "    b = pyro.param('b', torch.tensor(2.0), constraint=positive)\n"
        "    pyro.sample('p', dist.Beta(a, b))\n"
    )
    (models / "flips.csv").write_text("heads\n1\n0\n1\n")
    arguments = ("guides.py:coin", "--data", "flips.csv", "--guide", "guides.py:guide")
    result = vitools("fit", *arguments)
    assert result.exit_code == 0, result.output
    (line,) = re.findall(r"^p +(\S+) +(\S+)$", result.stdout, re.MULTILINE)
    # the guide holds the posterior Beta(3, 2), to which stochastic steps come within a few percent
    assert float(line[0]) == pytest.approx(3 / 5, abs=0.03)
    assert "verdict: trust" in result.stdout
    result = vitools("compare", *arguments, "--methods", "exact,own-guide", "--report", "out")
    assert result.exit_code == 0, result.output
    page = (models / "out" / "index.html").read_text("utf-8")
    assert "--guide guides.py:guide" in page
