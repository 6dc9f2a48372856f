"""What models of tutorials do and a problem has to read: odd tensors, plates, reparameterisers."""

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.infer.reparam import LocScaleReparam
from torch.distributions import Beta, constraints

from vitools import Problem, cavi, draw, exact, load, nuts, save, svi, to_arviz
from vitools.errors import DataError, ModelError, NotSupportedError, OptionError
from vitools.guides import AutoMultivariate

# ---- observations ------------------------------------------------------------------------------


def _rows(x, size=3):
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", size):
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)


def test_grey_pixels_are_taken_where_the_model_says_not_to_validate():
    def grey(x, validate):
        shade = pyro.sample("shade", dist.Beta(1.0, 1.0))
        with pyro.plate("pixels", len(x)):
            pyro.sample("x", dist.Bernoulli(shade, validate_args=validate), obs=x)

    x = torch.tensor([0.2, 0.5, 0.1, 0.9])
    with pytest.raises(DataError, match="expected a value in the support of Bernoulli"):
        Problem(grey, x, None)
    problem = Problem(grey, x, False)
    # the density p^Σx (1-p)^Σ(1-x) integrates to a Beta function
    truth = math.lgamma(2.7) + math.lgamma(3.3) - math.lgamma(6.0)
    assert exact(problem).log_evidence.value == pytest.approx(truth, abs=1e-8)
    fit = cavi(problem)
    assert float(fit.mean()["shade"]) == pytest.approx(float(Beta(2.7, 3.3).mean), abs=1e-10)
    assert fit.elbo().value == pytest.approx(truth, abs=1e-8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: x.to_sparse(), r"sparse tensor.*to_dense\(\)"),
        (lambda x: x.to("meta"), "device 'meta'"),
        (lambda x: torch.complex(x, x), "expected observations that are real numbers"),
    ],
    ids=["sparse", "meta", "complex"],
)
@pytest.mark.parametrize("is_argument", [True, False])
def test_tensors_without_plain_numbers_are_refused_as_data(make, words, is_argument):
    x = make(torch.tensor([0.2, 0.5, 0.1]))
    model, arguments = (_rows, (x,)) if is_argument else (lambda: _rows(x), ())
    with pytest.raises(DataError, match=words):
        Problem(model, *arguments)


def test_a_remedy_for_wide_observations_names_no_plate_that_is_there():
    with pytest.raises(DataError, match=r"\(2,\) more numbers in each element of the plates"):
        Problem(_rows, torch.zeros(3, 2))
    with pytest.raises(DataError, match=r"dim of size 2 more on the left.*dim=-2"):
        Problem(_rows, torch.zeros(2, 3))
    with pytest.raises(DataError, match=r"Plate 'rows' has size 3, the data have 4"):
        Problem(_rows, torch.zeros(4))


def test_a_plate_without_a_size_is_refused_by_name():
    with pytest.raises(ModelError, match=r"plate 'rows' has no size.*pyro.plate\('rows', len"):
        Problem(_rows, torch.zeros(3), None)


class Unsaid(dist.TorchDistribution):
    """A normal that does not say its support."""

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012

    def __init__(self, loc):
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)

    def rsample(self, sample_shape=torch.Size()):  # noqa: B008
        return dist.Normal(self.loc, 1.0).rsample(sample_shape)

    def log_prob(self, value):
        return dist.Normal(self.loc, 1.0).log_prob(value)


def test_a_distribution_without_a_support_may_be_observed_and_is_refused_as_a_latent():
    def observed(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        pyro.sample("x", Unsaid(level), obs=x)

    def latent(x):
        level = pyro.sample("level", Unsaid(torch.tensor(0.0)))
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    found = exact(Problem(observed, torch.tensor(0.4))).log_evidence.value
    assert found == pytest.approx(
        float(dist.Normal(0.0, math.sqrt(2.0)).log_prob(torch.tensor(0.4)))
    )
    with pytest.raises(ModelError, match=r"site 'level'.*Unsaid.*give it a support"):
        Problem(latent, torch.tensor(0.4))


# ---- deterministic values ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deterministic", "delta"])
def test_a_computed_value_in_a_plate_that_data_depend_on_keeps_its_shape(kind):
    def model(x):
        level = pyro.sample("level", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
            value = level + shift.unsqueeze(-1)
            if kind == "delta":
                value = pyro.sample("value", dist.Delta(value, event_dim=1))
            else:
                value = pyro.deterministic("value", value)
            pyro.sample("x", dist.Normal(value, 1.0).to_event(1), obs=x)

    problem = Problem(model, torch.arange(6.0).reshape(3, 2))
    fit = svi(problem, AutoMultivariate, max_steps=20)
    drawn = fit.sample(5)
    found = problem.predictive(drawn)
    assert found["x"].shape == (5, 3, 2)
    expected = drawn["level"].unsqueeze(-2) + drawn["shift"].unsqueeze(-1)
    torch.testing.assert_close(found["value"], expected)
    groups = to_arviz(fit, num_samples=5)
    assert groups["posterior"]["value"].shape == (1, 5, 3, 2)
    assert groups["prior"]["value"].shape == (1, 5, 3, 2)
    assert groups["posterior_predictive"]["x"].shape == (1, 5, 3, 2)


def test_a_guide_that_draws_a_computed_value_is_told_how_to_leave_it_out():
    def model(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        twice = pyro.sample("twice", dist.Delta(2 * level))
        pyro.sample("x", dist.Normal(twice, 1.0), obs=x)

    problem = Problem(model, torch.tensor(0.2))
    with pytest.raises(OptionError, match=r"'twice', which model .* computes.*poutine\.block"):
        svi(problem, AutoNormal)
    assert svi(problem, AutoMultivariate, max_steps=8).points == ()


# ---- markov and reparam ---------------------------------------------------------------------------


def _walk(x):
    state = torch.tensor(0.0)
    for t in pyro.markov(range(len(x))):
        state = pyro.sample(f"z{t}", dist.Normal(state, 1.0))
        pyro.sample(f"x{t}", dist.Normal(state, 1.0), obs=x[t])


def _walk_evidence(x):
    walk = torch.tril(torch.ones(len(x), len(x)))
    covariance = walk @ walk.T + torch.eye(len(x))
    return float(dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(x))


def test_latents_inside_markov_are_fitted_by_svi():
    x = torch.tensor([0.2, 0.5, 0.1])
    fit = svi(Problem(_walk, x), AutoMultivariate)
    bound = fit.elbo()
    assert abs(bound.value - _walk_evidence(x)) < 0.05 + 4 * bound.standard_error


def test_a_continuous_latent_inside_markov_may_depend_on_a_summed_out_one():
    def switching(x):
        state = torch.tensor(0)
        for t in pyro.markov(range(len(x))):
            table = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
            state = pyro.sample(f"state{t}", dist.Categorical(table[state]))
            level = pyro.sample(f"level{t}", dist.Normal(2.0 * state, 1.0))
            pyro.sample(f"x{t}", dist.Normal(level, 0.5), obs=x[t])

    problem = Problem(switching, torch.tensor([0.1, 1.9]))
    fit = svi(problem, AutoMultivariate, max_steps=600)
    bound, truth = fit.elbo(), exact(problem, tol=1e-3).log_evidence.value
    assert bound.value < truth + 4 * bound.standard_error
    assert bound.value > truth - 0.2


@pytest.mark.parametrize("centred", [0.0, 0.5, None])
def test_a_reparameterised_model_is_fitted_by_guides_made_from_it(centred):
    def model(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(level, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.2, 0.5, 0.1])
    problem = Problem(poutine.reparam(model, config={"z": LocScaleReparam(centred)}), x)
    assert problem.name == Problem(model, x).name
    covariance = torch.ones(3, 3) + 2 * torch.eye(3)
    truth = float(dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x))
    if centred is None:  # the model's own parameter is trained as well
        svi(problem, AutoNormal, max_steps=20)
    fit = svi(problem, AutoMultivariate)
    bound = fit.elbo()
    assert abs(bound.value - truth) < 0.05 + 4 * bound.standard_error


def test_draws_of_a_reparameterised_model_have_the_old_site_too():
    def model(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(level, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    config = {"z": LocScaleReparam(0.0)}
    problem = Problem(poutine.reparam(model, config=config), torch.tensor(0.5))
    fit = nuts(problem, num_samples=10, num_warmup=10, num_chains=1)
    drawn = fit.sample(5)
    found = problem.predictive(drawn)
    torch.testing.assert_close(found["z"], drawn["level"] + drawn["z_decentered"])


# ---- what is not there ------------------------------------------------------------------------------


def test_without_latents_the_evidence_is_the_answer_and_engines_say_so():
    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    x = torch.tensor([0.3, -1.0])
    problem = Problem(model, x)
    truth = float(dist.Normal(0.0, 1.0).log_prob(x).sum())
    assert exact(problem).log_evidence.value == pytest.approx(truth, abs=1e-12)
    for name, engine in {
        "svi": lambda p: svi(p, AutoMultivariate),
        "nuts": nuts,
        "cavi": cavi,
    }.items():
        with pytest.raises(NotSupportedError, match=rf"no latent sites.*for {name}\(\) to infer"):
            engine(problem)


def test_a_factor_is_data_enough():
    def model():
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
        pyro.factor("bend", -u.square())

    problem = Problem(model)  # Normal(0, 1/√3), of mass 1/√3
    assert exact(problem).log_evidence.value == pytest.approx(-math.log(3) / 2, abs=1e-8)
    fit = svi(problem, AutoMultivariate, max_steps=50)
    assert problem.predictive(fit.sample(3)) == {}
    assert to_arviz(fit, num_samples=3)["posterior"]["u"].shape == (1, 3)


def test_a_fit_under_an_improper_prior_is_kept_and_drawn(tmp_path):
    def model(x):
        level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), ()))
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    problem = Problem(model, torch.tensor(0.3))
    fit = svi(problem, AutoMultivariate, max_steps=50)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    torch.testing.assert_close(again.sample(3)["level"], fit.sample(3)["level"])
    assert draw(problem).axes


@pytest.mark.parametrize("other", ["event", "plate", "observed", "kind"])
def test_a_site_that_is_another_kind_of_statement_at_each_run_is_refused(other):
    runs = []

    def model(x):
        runs.append(None)
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        odd = len(runs) % 2 == 1
        if odd:
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        elif other == "event":
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
        elif other == "plate":
            with pyro.plate("rows", 3):
                pyro.sample("z", dist.Normal(0.0, 1.0))
        elif other == "observed":
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=torch.zeros(3))
        else:
            pyro.sample("z", dist.Poisson(torch.ones(3)).to_event(1))
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    with pytest.raises(ModelError, match="site 'z' is another kind of statement from run to run"):
        Problem(model, torch.tensor(0.2))


def test_draws_of_binomial_data_come_without_torchs_warning():
    def model(n, k):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", len(k)):
            pyro.sample("k", dist.Binomial(n, p), obs=k)

    n = torch.tensor([3.0, 40.0])
    problem = Problem(model, n, torch.tensor([1.0, 20.0]))
    drawn = problem.predictive({"p": torch.full((2000,), 0.25)})["k"]  # warnings are errors here
    error = (n * 0.25 * 0.75 / 2000).sqrt()
    assert bool(((drawn.mean(0) - n * 0.25).abs() < 4 * error).all())
    assert bool((drawn[1:] != drawn[:-1]).any())


def test_a_model_that_ends_the_program_is_at_fault():
    def model(x):
        sys.exit(0)

    with pytest.raises(ModelError, match="raised SystemExit"):
        Problem(model, torch.tensor(0.2))
