"""Models of the user's own and their data: what is understood, and how mistakes are answered."""

import math
import re

import arviz
import numpy as np
import pytest
import torch

from vitools.cli.arguments import DataFile
from vitools.cli.target import open_target
from vitools.errors import DataError, VitoolsWarning

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
    arguments = open_target("mymodels.py:groups", DataFile(models / "rows.npz"), 0).problem.kwargs
    assert arguments["y"].dtype == torch.float32
    assert arguments["group"].dtype == torch.int32
    np.savez("table.npz", table=np.ones((4, 3)))
    problem = open_target("mymodels.py:columns_of", DataFile(models / "table.npz"), 0).problem
    assert problem.latents["mean"].shape == (3,)


def test_the_one_argument_without_a_column_gets_the_table_of_the_other_columns(vitools, models):
    (models / "table.csv").write_text("x,y\n1,2\n2,3\n3,7\n")
    sd = math.sqrt(1 / 4)
    expected = {"mean[0]": close(6 / 4, sd), "mean[1]": close(12 / 4, sd)}
    assert fit(vitools, "columns_of", "table.csv") == expected


def test_columns_with_a_name_stay_out_of_the_table(models):
    (models / "data.csv").write_text("age,target,bmi\n1,9.5,2\n3,8.5,4\n5,1.5,6\n")
    target = open_target("regression", DataFile(models / "data.csv"), 0)
    assert target.problem.kwargs["features"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert target.problem.kwargs["target"].tolist() == [9.5, 8.5, 1.5]


def test_a_column_binds_to_no_argument_of_another_name_unless_told(vitools, refused, models):
    (models / "flips.csv").write_text("it landed\n1\n0\n1\n")
    message = refused("fit", "mymodels.py:coin", "--data", "flips.csv")
    assert "has no column 'heads'" in message
    assert "--columns 'heads=it landed'" in message
    more = ("--columns", "heads=it landed", "--method", "exact")
    result = vitools("fit", "mymodels.py:coin", "--data", "flips.csv", *more)
    assert result.exit_code == 0, result.output
    (line,) = re.findall(r"^p +(\S+) +(\S+)$", result.stdout, re.MULTILINE)
    assert float(line[0]) == pytest.approx(3 / 5, rel=0.01)


def opened(model, path, **options):
    """The problem of a model on a file."""
    columns = options.pop("columns", {})
    return open_target(f"mymodels.py:{model}", DataFile(path, columns, **options), 0).problem


def test_columns_given_to_one_argument_stand_side_by_side(models):
    (models / "data.csv").write_text("name,age,dose,y\nann,1,2.5,9\nbob,3,4.5,8\n")
    chosen = {"table": ("dose", "age")}
    table = opened("columns_of", models / "data.csv", columns=chosen).kwargs["table"]
    assert table.tolist() == [[2.5, 1], [4.5, 3]]
    with pytest.raises(DataError, match=r"column 'name': words, .* --columns table=COLUMN"):
        opened("columns_of", models / "data.csv")  # all columns would be the table


@pytest.mark.filterwarnings("ignore:.*the words of 'group' stand as codes")
def test_unused_columns_may_hold_anything_and_words_become_labelled_codes(models):
    (models / "data.csv").write_text(
        "when,y,note,,group,empty\n2020-01-02,1.5,hm,,oak,\n,2.5,1,7,ash,\nsoon,3.5,,,oak,\n"
    )
    problem = opened("groups", models / "data.csv")
    assert problem.kwargs["group"].tolist() == [1, 0, 1]
    assert problem.coords == {"mean_dim_0": ["ash", "oak"]}
    assert list(problem.kwargs) == ["y", "group"]


@pytest.mark.filterwarnings("ignore:.*stand as codes")
def test_labels_go_to_what_they_fit_alone_or_by_name(models):
    (models / "crossed.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "def model(y, sex, site):\n"
        "    with pyro.plate('sexes', 2):\n"
        "        a = pyro.sample('a', dist.Normal(0., 1.))\n"
        "    with pyro.plate('places', 2):\n"
        "        b = pyro.sample('b', dist.Normal(0., 1.))\n"
        "    with pyro.plate('rows', len(y)):\n"
        "        pyro.sample('obs', dist.Normal(a[sex] + b[site], 1.), obs=y)\n"
    )
    (models / "data.csv").write_text("y,sex,site\n1.5,f,x\n2.5,m,z\n0.5,m,x\n")
    problem = open_target("crossed.py:model", DataFile(models / "data.csv"), 0).problem
    assert problem.coords == {"sexes": ["f", "m"]}  # either would fit the places


def test_the_labels_of_a_factor_are_in_posterior_nc(vitools, models):
    (models / "data.csv").write_text("y;group\n1,5;oak\n2,5;ash\n3,5;oak\n")
    more = ("--method", "cavi", "--out", "fits")
    result = vitools("fit", "mymodels.py:groups", "--data", "data.csv", *more)
    assert (
        "note: 'data.csv': the words of 'group' stand as codes: ash = 0, oak = 1." in result.stderr
    )
    posterior = arviz.from_netcdf("fits/posterior.nc").posterior
    assert posterior["mean_dim_0"].values.tolist() == ["ash", "oak"]
    assert float(posterior["mean"].sel(mean_dim_0="oak").mean()) > 1.0  # (1.5 + 3.5) / 3


def test_missing_values_are_refused_dropped_or_masked(vitools, refused, models):
    (models / "masked.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "def model(y, x, mask=None):\n"
        "    slope = pyro.sample('slope', dist.Normal(x.new_zeros(()), 1.0))\n"
        "    with pyro.plate('rows', len(y)):\n"
        "        with pyro.poutine.mask(mask=True if mask is None else mask):\n"
        "            pyro.sample('obs', dist.Normal(slope * x, 1.0), obs=y)\n"
    )
    (models / "data.csv").write_text("x,y,z\n1.5,2.5,\n2.5,NA,1\n,1.5,1\n3.5,4.5,\n")
    command = ("fit", "masked.py:model", "--data", "data.csv", "--method", "exact")
    message = refused(*command)
    assert "line 3, column 'y': missing" in message
    assert "in all y 1, x 1. " in message
    slopes = []
    for choice in ("drop", "mask"):
        result = vitools(*command, "--missing", choice)
        assert result.exit_code == 0, result.output
        slopes += re.findall(r"^slope +(\S+) +(\S+)$", result.stdout, re.MULTILINE)
    assert slopes[0] == slopes[1]
    expected = (1.5 * 2.5 + 3.5 * 4.5) / (1 + 1.5**2 + 3.5**2)
    assert float(slopes[0][0]) == pytest.approx(expected, rel=1e-3)
    (models / "lines.csv").write_text("x,y\n1,2\n2,\n")
    message = refused("fit", "mymodels.py:line", "--data", "lines.csv", "--missing", "mask")
    assert "lacks 1 values of 'y'" in message
    assert "no argument 'mask' (or 'y_mask')" in message


def test_an_argument_may_have_a_mask_of_its_own(models):
    (models / "mymodels.py").write_text(
        MODELS + "\n\ndef own(y, y_mask, x, mask):\n"
        "    mu = pyro.sample('mu', dist.Normal(0.0, 1.0))\n"
        "    with pyro.plate('rows', len(y)), pyro.poutine.mask(mask=y_mask & mask):\n"
        "        pyro.sample('obs', dist.Normal(mu + x, 1.0), obs=y)\n"
    )
    (models / "data.csv").write_text("y,x\n1.5,2\n,2\n2.5,\n")
    with pytest.warns(VitoolsWarning, match="missing are masked: y 1, x 1"):
        kwargs = opened("own", models / "data.csv", missing="mask").kwargs
    assert kwargs["y_mask"].tolist() == [True, False, True]
    assert kwargs["mask"].tolist() == [True, True, False]
    assert kwargs["y"].tolist() == [1.5, 1.5, 2.5]  # a value that the model can take


def test_whole_numbers_and_booleans_stay_so_for_a_model_that_takes_them(models):
    (models / "kinds.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "def model(y, count, flag):\n"
        "    mu = pyro.sample('mu', dist.Normal(0.0, 1.0))\n"
        "    with pyro.plate('rows', len(y)):\n"
        "        loc = torch.where(flag, mu, -mu) + torch.zeros(5)[count]\n"
        "        pyro.sample('obs', dist.Normal(loc, 1.0), obs=y)\n"
    )
    (models / "data.csv").write_text("y,count,flag\n1.5,2,true\n2.0,4,False\n")
    problem = open_target("kinds.py:model", DataFile(models / "data.csv"), 0).problem
    types = {name: value.dtype for name, value in problem.kwargs.items()}
    assert types == {"y": torch.float64, "count": torch.int64, "flag": torch.bool}


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
    arguments = open_target("mixed.py:model", DataFile(models / "data.csv"), 0).problem.kwargs
    types = {name: value.dtype for name, value in arguments.items()}
    assert types["x"] is torch.float32
    assert types["group"] is torch.int64


def test_a_shipped_model_takes_data_of_ones_own(models):
    (models / "rolls.csv").write_text("first,second\n0,5\n3,2\n1,1\n")
    problem = open_target("two-dice", DataFile(models / "rolls.csv"), 0).problem
    assert problem.kwargs["rolls"].tolist() == [[0, 5], [3, 2], [1, 1]]
    assert problem.kwargs["rolls"].dtype == torch.int64
    np.savez("images.npz", images=np.eye(64)[:5])
    target = open_target("vae", DataFile(models / "images.npz"), 0)
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
    "NaN cell": ("x,y\n1,2\n2,nan\n", ["line 3, column 'y'", "missing", "--missing drop"]),
    "blank cell": ("x,y\n1,2\n2,\n", ["line 3, column 'y'", "missing", "--missing drop"]),
    "word": ("x,y\n1,2\n2,3\n4,tall\n", ["line 4, column 'y'", "got 'tall'"]),
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
        "rows.txt": ["rows.txt", "'.txt'", ".csv, .tsv, .npy, .npz"],
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


def test_columns_of_the_wrong_dtype_or_shape_are_told(vitools, refused, models):
    np.savez(models / "flips.npz", heads=np.array([0, 1, 1]))
    assert fit(vitools, "coin", "flips.npz")["p"] == close(3 / 5, 0.2)  # whole numbers serve, too
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


def test_a_pattern_of_files_is_one_table(models, tmp_path):
    for i, rows in enumerate(("1\n0\n", "1\n1\n0\n")):
        (tmp_path / f"part-{i}.csv").write_text(f"heads\n{rows}")
    target = open_target(f"{models}/mymodels.py:coin", DataFile(tmp_path / "part-*.csv"), 0)
    assert target.problem.observed["obs"].value.tolist() == [1, 0, 1, 1, 0]


def test_a_value_that_the_model_cannot_take_is_named_by_its_file_and_row(models, tmp_path):
    for i, rows in enumerate(("1\n0\n", "1\n3\n0\n")):
        (tmp_path / f"part-{i}.csv").write_text(f"heads\n{rows}")
    with pytest.raises(DataError, match=r"site 'obs'.*It stands in .*part-1\.csv, row 1 "):
        open_target(f"{models}/mymodels.py:coin", DataFile(tmp_path / "part-*.csv"), 0)


def test_rows_that_arrive_are_taken_into_a_saved_fit(vitools, models):
    for i, rows in enumerate(("1\n0\n1\n", "1\n1\n1\n1\n0\n")):
        (models / f"part-{i}.csv").write_text(f"heads\n{rows}")
    first = vitools(
        *("fit", "mymodels.py:coin", "--data", "part-0.csv", "--method", "cavi", "--out", "one")
    )
    assert first.exit_code == 0, first.output
    fit = ("fit", "mymodels.py:coin", "--data", "part-1.csv", "--method", "cavi", "--out", "two")
    second = vitools(*fit, "--update", "one/fit.safetensors")
    assert second.exit_code == 0, second.output
    assert re.search(r"^p +0\.7 ", second.output, flags=re.MULTILINE)  # Beta(1 + 6, 1 + 2)
    third = vitools(*fit[:-1], "three", "--update", "two/fit.safetensors", "--forgetting", "0.5")
    # Beta(1 + 6/2 + 4, 1 + 2/2 + 1)
    assert re.search(r"^p +0\.7273 ", third.output, flags=re.MULTILINE)


def test_forgetting_without_a_fit_is_refused(refused, models):
    (models / "part.csv").write_text("heads\n1\n0\n")
    words = refused("fit", "mymodels.py:coin", "--data", "part.csv", "--forgetting", "0.5")
    assert "--forgetting is of earlier rows: name their fit, --update FILE" in words
    absent = refused("fit", "mymodels.py:coin", "--data", "part.csv", "--update", "no.safetensors")
    assert "no file 'no.safetensors'" in absent


def test_rows_are_taken_some_at_a_time(vitools, refused, models):
    rows = "\n".join(f"{i / 50},{i / 25 + (i % 7) / 10}" for i in range(100))
    (models / "rows.csv").write_text(f"x,y\n{rows}\n")
    fit = ("fit", "mymodels.py:line", "--data", "rows.csv", "--method")
    result = vitools(*fit, "cavi", "--batch-rows", "40")
    assert "batches of 40 rows of 'rows'" in " ".join(result.output.split())
    words = refused(*fit, "laplace", "--batch-rows", "40")
    assert "--batch-rows is for --method cavi" in words
