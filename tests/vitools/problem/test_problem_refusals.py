"""What a problem refuses, when, and in which words."""

import math
import warnings

import numpy
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from vitools import cavi, exact, explain, find_modes, nuts, svi
from vitools.errors import DataError, ModelError, OptionError
from vitools.problem import Problem


def rows(y, features=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    mean = mu if features is None else mu + features
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def faces(x):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(6)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Categorical(p), obs=x)


def latent_only():
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("sigma", dist.Exponential(1.0))


def grows(y):
    n = int(pyro.sample("u", dist.Uniform(0.0, 1.0)) * 50) + 1
    pyro.sample("w", dist.Normal(torch.zeros(n), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def flickers(y):
    u = pyro.sample("u", dist.Uniform(0.0, 1.0))
    pyro.sample(f"x_{int(u * 1000)}", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def moving_support(y):
    top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
    pyro.sample("u", dist.Uniform(0.0, top))
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def moving_discrete_support(y):
    n = pyro.sample("n", dist.Uniform(1.0, 50.0)).floor()
    pyro.sample("k", dist.Binomial(n, 0.5))
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def joint_discrete(y):
    z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))
    pyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=y)


def unplated_discrete(y):
    z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)))
    pyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=y)


def uneven_binomial(y):
    with pyro.plate("rows", 2):
        k = pyro.sample("k", dist.Binomial(torch.tensor([2.0, 3.0]), 0.5))
        pyro.sample("y", dist.Normal(k, 1.0), obs=y.expand(2))


def twice(y):
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def plate_twice(y):
    with pyro.plate("rows", 2):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 2):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y.expand(2))


def masked_latent(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0).mask(False))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def strange_support(y):
    x = pyro.sample("x", dist.ProjectedNormal(torch.tensor([0.0, 0.0, 2.0])))
    pyro.sample("y", dist.Normal(x[..., 0], 1.0), obs=y)


def broken(y):
    raise KeyError("no column 'age'")


def reduces(y):
    with pyro.plate("rows", 3):
        z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=y)


def reorders(y):
    with pyro.plate("rows", 3):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        before = torch.cat([torch.zeros_like(z[..., :1]), z[..., :-1]], -1)
        pyro.sample("y", dist.Normal(before + 0.0 * z, 1.0), obs=y.expand(3))


def leaves_its_plate(y):
    with pyro.plate("rows", 3):
        z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.sample("y", dist.Normal(z, 1.0), obs=y.expand(3))


def breaks_when_enumerated(y):
    with pyro.plate("rows", 3):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(z.reshape(3), 1.0), obs=y.expand(3))


ONE = torch.tensor(1.0).double()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (latent_only, r"model 'latent_only' observes nothing: .*\(mu, sigma\)"),
        (grows, r"site 'w' changes shape from run to run \(\(\d+,\), then \(\d+,\)\)"),
        (flickers, r"different sites from run to run \(x_\d+, x_\d+\)"),
        (moving_support, "site 'u': its support depends on other latents .* Draw it on a fixed"),
        (
            moving_discrete_support,
            "site 'k': its support depends on .* Give it the largest support",
        ),
        (
            joint_discrete,
            r"site 'z' \(Bernoulli\) .* one event by to_event.*Put it in a pyro.plate",
        ),
        (unplated_discrete, r"site 'z' .* of batch shape \(3,\) outside any plate"),
        (uneven_binomial, "site 'k' .* whose entries differ in support"),
        (twice, "site 'mu' is sampled twice in one run"),
        (plate_twice, "plate 'rows' is made twice in one run"),
        (masked_latent, "site 'mu' is a latent with a mask inside its distribution"),
        (strange_support, r"site 'x' \(ProjectedNormal\) has support Sphere"),
        (broken, "model 'broken' raised KeyError when run on its data: .*no column 'age'"),
    ],
)
def test_models_are_refused_by_name(model, words):
    with pytest.raises(ModelError, match=words):
        Problem(model) if model is latent_only else Problem(model, ONE)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (reduces, r"runs, but not with its discrete latents \(z\) enumerated: .* at site 'y'"),
        (reorders, r"runs, but not with its discrete latents \(z\) enumerated"),
        (leaves_its_plate, "density of site 'y' changes when .*use it only inside its own plate"),
        (breaks_when_enumerated, "runs, but not with its discrete latents .z. enumerated"),
    ],
)
def test_models_that_enumeration_misreads_are_refused_before_anything_is_fitted(model, words):
    problem = Problem(model, ONE)
    for begin in (cavi, svi, nuts, exact, explain, find_modes, lambda problem: problem.prior(3)):
        with pytest.raises(ModelError, match=words):
            begin(problem)


NAN = math.nan


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (
            rows,
            (torch.tensor([0.0, NAN, 1.0]).double(),),
            r"site 'y': expected a finite number, got nan at index 1, counted from 0 \(1 such of 3\)",
        ),
        (
            rows,
            (torch.tensor([0.0, -math.inf]).double(),),
            r"site 'y': expected a finite number, got -inf at index 1",
        ),
        (
            faces,
            (torch.tensor([0, 5, 7, 6]),),
            r"site 'x': expected a value in the support of Categorical \(integers 0 to 5\), got 7 at "
            r"index 2, counted from 0 \(2 such of 4\). Remedy: recode or mask",
        ),
        (faces, (torch.tensor([0.0, 2.5]).double(),), r"integers 0 to 5\), got 2.5 at index 1"),
        (
            rows,
            (torch.zeros(3, 1).double(),),
            r"site 'y': the model expects observations of shape \(3,\), got \(3, 1\)",
        ),
        (
            rows,
            (torch.zeros(2).double(), torch.tensor([0.0, NAN]).double()),
            "argument 'features' of model 'rows' holds NaN or infinity",
        ),
        (rows, ([1.0, 2.0],), "site 'y': expected observations as a torch tensor, got list"),
    ],
)
def test_data_are_refused_by_site_and_index(model, data, words):
    with pytest.raises(DataError, match=words):
        Problem(model, *data)


def test_bounds_of_an_entry_are_its_own():
    def model(x):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Binomial(torch.tensor([9.0, 2.0, 9.0]), p), obs=x)

    with pytest.raises(DataError, match=r"Binomial \(integers 0 to 2\), got 4.0 at index 1"):
        Problem(model, torch.tensor([4.0, 4.0, 4.0]))


def test_a_vector_outside_its_support_is_named_by_row():
    def model(x):
        a = pyro.sample("a", dist.Exponential(1.0))
        with pyro.plate("rows", 2):
            pyro.sample("x", dist.Dirichlet(a * torch.ones(3)), obs=x)

    bad = torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.6]])
    with pytest.raises(DataError, match=r"Dirichlet \(Simplex\), got \[0.2, 0.3, 0.6\] at index 1"):
        Problem(model, bad)


def test_observations_of_the_wrong_type_are_named():
    def model(x):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", 2):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    with pytest.raises(DataError, match=r"site 'x': Bernoulli cannot give .* dtype torch.int64"):
        Problem(model, torch.tensor([0, 1]))
    assert Problem(model, torch.tensor([0.0, 1.0])).observed["x"].dtype == torch.float64


def test_whole_numbers_as_floats_are_categories_too():
    as_float = Problem(faces, torch.tensor([0.0, 5.0]))
    as_int = Problem(faces, torch.tensor([0, 5]))
    p = {"p": torch.full((6,), 1 / 6)}
    torch.testing.assert_close(as_float.log_joint(p), as_int.log_joint(p))


def test_masks_must_fit_the_data():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3), poutine.mask(mask=torch.ones(2, dtype=torch.bool)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(DataError, match=r"site 'y': expected a mask of shape \(3,\).*got \(2,\)"):
        Problem(model, torch.zeros(3))


class Undefined(dist.Normal):
    def log_prob(self, value):
        return torch.full(value.shape, math.nan)


def test_nan_without_a_nan_argument_points_at_the_parameters():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", Undefined(mu, 1.0), obs=y)

    with pytest.raises(DataError, match="site 'y': its log density is NaN: check the parameters"):
        Problem(model, ONE)


def test_a_support_that_depends_on_latents_is_no_mistake_of_the_data():
    def model(y):
        top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Uniform(0.0, top), obs=y)

    problem = Problem(model, torch.tensor([0.5, 50.0]))
    expected = dist.LogNormal(0.0, 1.0).log_prob(torch.tensor(60.0)) - 2 * math.log(60.0)
    found = problem.log_joint({"top": torch.tensor([60.0, 40.0])})
    torch.testing.assert_close(found, torch.stack([expected, torch.tensor(-math.inf)]))


def test_only_callables_are_models():
    with pytest.raises(OptionError, match=r"expected a Pyro model \(a callable\), got dict"):
        Problem({})


def test_models_of_every_callable_kind_have_names():
    class Module(torch.nn.Module):
        def model(self, y):
            rows(y)

        def forward(self, y):
            rows(y)

    y = torch.zeros(2).double()
    assert Problem(rows, y).name == "rows"
    assert Problem(poutine.scale(rows, scale=2.0), y).name == "rows"
    assert Problem(Module(), y).name == "Module"
    assert Problem(lambda y: rows(y), y).name == "<lambda>"


# ---- values ---------------------------------------------------------------------------------------


def mixture(y):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    sigma = pyro.sample("sigma", dist.Exponential(1.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(torch.tensor([-1.0, 1.0])[z], sigma), obs=y)


GOOD = {"weights": torch.tensor([0.4, 0.6]).double(), "sigma": ONE}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"weigths": GOOD["weights"], "sigma": ONE},  # codespell:ignore weigths
            "no latent site 'weigths' .* Did you mean 'wei",
        ),
        ({"weights": GOOD["weights"]}, "values for 'sigma' are missing"),
        ({}, "values for 'weights', 'sigma' are missing"),
        (GOOD | {"y": torch.zeros(4)}, r"no latent site 'y' .*\(latents: weights, sigma, z\)"),
        (
            GOOD | {"weights": torch.ones(5, 3)},
            r"site 'weights': expected values of shape \[\*samples, 2\], got \(5, 3\)",
        ),
        (GOOD | {"sigma": 1.0}, "site 'sigma': expected a tensor, got float"),
        (
            {"weights": torch.ones(3, 2), "sigma": torch.ones(4)},
            r"leading sample dims do not fit each other: 'weights' \(3,\), 'sigma' \(4,\)",
        ),
        (GOOD | {"z": torch.tensor([0, 1, 2, 0])}, r"site 'z': a given value is not .*\(0, 1\)"),
        (
            {"weights": torch.ones(0, 2), "sigma": torch.ones(0)},
            "expected at least one draw, got none",
        ),
    ],
)
def test_values_are_refused_by_name(values, words):
    problem = Problem(mixture, torch.zeros(4).double())
    with pytest.raises(OptionError, match=words):
        problem.log_joint(values)


def test_a_model_that_fails_at_some_values_says_so():
    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        torch.linalg.cholesky((a - 3).square() * torch.eye(2) - 1e-3)
        pyro.sample("y", dist.Normal(a, 1.0), obs=y)

    problem = Problem(model, ONE)
    with pytest.raises(ModelError, match=r"model 'test_problem_refusals' raised .*cholesky"):
        problem.log_joint({"a": torch.tensor([0.0, 3.0])})


def test_a_models_own_warnings_stay_warnings():
    def model(y):
        warnings.warn("slow day", RuntimeWarning, stacklevel=2)
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(RuntimeWarning, match="slow day"):  # warnings are errors here
        Problem(model, ONE)
    with pytest.warns(RuntimeWarning, match="slow day"):
        assert list(Problem(model, ONE).latents) == ["mu"]


def test_coordinates_must_fit_their_plates():
    problem = Problem(rows, torch.zeros(3).double())
    labelled = problem.with_coords(rows=["a", "b", "c"])
    assert labelled.coords == {"rows": ["a", "b", "c"]}
    assert problem.coords == {}
    with pytest.raises(OptionError, match="plate 'rows': expected 3 labels, got 2"):
        problem.with_coords(rows=[1, 2])
    with pytest.raises(OptionError, match=r"no plate 'row' .* Did you mean 'rows'"):
        problem.with_coords(row=[1, 2, 3])


def test_fingerprint_tells_data_arguments_and_sites_apart():
    y, other = torch.zeros(3).double(), torch.ones(3).double()
    prints = {
        Problem(rows, y).fingerprint,
        Problem(rows, other).fingerprint,
        Problem(rows, y, other).fingerprint,
        Problem(rows, y, y).fingerprint,
        Problem(rows, y.float()).fingerprint,
        Problem(mixture, y).fingerprint,
    }
    assert len(prints) == 6
    assert Problem(rows, y.clone()).fingerprint == Problem(rows, y).fingerprint


def test_arguments_that_are_no_tensors_are_named():
    class Column:
        def __array__(self, dtype=None, copy=None):
            return numpy.zeros(3, dtype)

    with pytest.raises(ModelError, match=r"No tensor is 'features' \(Column\): convert with"):
        Problem(rows, torch.zeros(3), Column())


def test_data_of_another_precision_than_the_model_s_numbers_are_named():
    def regression(features, y):
        weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(features @ weights, 1.0), obs=y)

    features = torch.zeros(3, 2, dtype=torch.float32)
    with pytest.raises(
        ModelError, match=r"become float64, other than 'features' \(float32\): conv"
    ):
        Problem(regression, features, torch.zeros(3))


@pytest.mark.parametrize(
    ("takes", "error", "words"),
    [
        (lambda m, x, rows: (m, x), DataError, r"site 'y'.*shape \(10,\), got \(100,\)"),
        (lambda m, x, rows: (m * x, x[rows]), ModelError, "runs on all its data, but not on a min"),
    ],
    ids=["data", "covariate"],
)
def test_rows_without_the_indices_of_their_minibatch_are_named(takes, error, words):
    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), subsample_size=10) as rows:
            mean, seen = takes(m, x, rows)
            pyro.sample("y", dist.Normal(mean, 1.0), obs=seen)

    with pytest.raises(error, match=words) as caught:
        Problem(model, torch.zeros(100))
    assert "x[rows]" in str(caught.value)


def test_rows_named_one_by_one_and_sites_of_the_whole_run_are_taken():
    x = torch.zeros(100)

    def sequential():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        for i in pyro.plate("rows", 100, subsample_size=10):
            pyro.sample(f"x_{i}", dist.Normal(m, 1.0), obs=x[i])

    def only_whole():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 100, subsample_size=10) as rows:
            pyro.sample("x", dist.Normal(m, 1.0), obs=x[rows])
            if len(rows) == 100:
                pyro.sample("y", dist.Normal(m, 1.0), obs=x)

    assert len(Problem(sequential).observed) == 100
    assert set(Problem(only_whole).observed) == {"x", "y"}


def test_a_minibatch_that_fails_for_its_own_reasons_is_told_so():
    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), subsample_size=10) as rows:
            if len(rows) < 20:
                raise RuntimeError("too few")
            pyro.sample("x", dist.Normal(m, 1.0), obs=x[rows])

    with pytest.raises(ModelError, match=r"not on a minibatch: too few\. Run the model by itself"):
        Problem(model, torch.zeros(100))
