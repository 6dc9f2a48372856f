"""Every mistake between guide and model that preflight is there for, and nothing on sound ones."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from vitools import BetaElbo, Elbo, Problem, preflight, svi
from vitools.engines.preflight.preflight import Preflight
from vitools.errors import ModelError, OptionError, VitoolsWarning
from vitools.guides import (
    AutoFlow,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
    AutoMultivariate,
)

DATA = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64)


def level(data):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(data), subsample_size=4) as rows:
        pyro.sample("y", dist.Normal(mean, scale), obs=data[rows])


REAL, POSITIVE = dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 0.5)


def draws(mean=REAL, scale=POSITIVE, **others):
    """A guide that draws these, with something to fit."""

    def guide(data):
        pyro.param("unused", torch.zeros(()))
        for name, q in {"mean": mean, "scale": scale, **others}.items():
            if q is not None:
                pyro.sample(name, q)

    return guide


def verdicts(report: Preflight) -> dict[str, str]:
    return {check.name: check.verdict for check in report.checks}


ALL_OK = dict.fromkeys(
    (
        "runs",
        "sites",
        "spread",
        "supports",
        "plates",
        "shapes",
        "scales",
        "data",
        "discrete",
    ),
    "ok",
)


@pytest.mark.parametrize(
    "guide",
    [
        draws(),
        draws(scale=dist.Gamma(3.0, 2.0)),
        draws(scale=dist.Weibull(1.0, 2.0)),
        draws(scale=dist.InverseGamma(3.0, 2.0)),
        draws(mean=dist.Gumbel(0.0, 1.0), scale=dist.HalfNormal(1.0)),
        AutoLogisticNormal,
        AutoMultivariate,
        pyro.infer.autoguide.AutoNormal,
    ],
)
def test_nothing_is_said_of_sound_guides(guide):
    report = preflight(Problem(level, DATA), guide)
    assert verdicts(report) == ALL_OK
    assert report.is_ready
    report.enforce()
    assert ": ready\n" in str(report)
    assert not len(pyro.get_param_store())


def test_every_support_is_known_of_its_own_families():
    def model():
        pyro.sample("unit", dist.Beta(1.0, 1.0))
        pyro.sample("within", dist.Uniform(torch.tensor([-2.0, 3.0]), 5.0).to_event(1))
        pyro.sample("above", dist.Pareto(2.0, 3.0))
        pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
        pyro.sample("factor", dist.LKJCholesky(2, 1.0))
        pyro.sample("angle", dist.VonMises(0.0, 1.0))
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))

    for guide in (AutoLogisticNormal, AutoKumaraswamy, AutoFlow):
        assert verdicts(preflight(Problem(model), guide)) == ALL_OK


@pytest.mark.parametrize(
    ("guide", "check", "error", "words"),
    [
        (lambda: None, "runs", OptionError, "the same arguments as its model"),
        (lambda data: data.nothing, "runs", ModelError, "raised AttributeError .*'nothing'"),
        (draws(scale=None), "sites", OptionError, "does not draw scale"),
        (draws(means=dist.Normal(0.0, 1.0)), "sites", OptionError, "Did you mean 'mean'"),
        (
            draws(scale=dist.Normal(0.1, 0.1)),
            "supports",
            OptionError,
            r"draws 'scale' outside its support: Normal gives values in \(-inf, inf\), the "
            r"model's Gamma lives on \(0, inf\)",
        ),
        (draws(mean=dist.Normal(torch.zeros(2), 1.0).to_event(1)), "shapes", OptionError, "shape"),
        (
            pyro.poutine.scale(draws(), scale=2.0),
            "scales",
            OptionError,
            "weighs 'mean' by 2, the model by 1",
        ),
    ],
)
def test_mistakes_of_a_guide_are_named(guide, check, error, words):
    problem = Problem(level, DATA)
    report = preflight(problem, guide)
    assert not report.is_ready
    (wrong,) = (c for c in report.checks if c.verdict == "wrong")
    assert wrong.name == check
    assert check in str(report)
    assert "wrong" in str(report)
    with pytest.raises(error, match=words):
        report.enforce()
    with pytest.raises(error, match=words):
        svi(problem, guide)


def test_a_guide_that_does_not_run_is_asked_nothing_else():
    report = preflight(Problem(level, DATA), lambda: None)
    assert set(verdicts(report).values()) == {"wrong", "not asked"}


def test_several_mistakes_are_all_listed():
    guide = pyro.poutine.scale(
        draws(scale=dist.Normal(0.0, 0.1), means=dist.Normal(0.0, 1.0)), scale=2.0
    )
    found = verdicts(preflight(Problem(level, DATA), guide))
    assert [name for name, verdict in found.items() if verdict == "wrong"] == [
        "sites",
        "supports",
        "scales",
    ]


@pytest.mark.parametrize(
    ("prior", "q"),
    [
        (dist.Normal(0.0, 1.0), dist.Uniform(0.0, 1.0)),
        (dist.Gamma(2.0, 1.0), dist.Pareto(1.0, 2.0)),
        (dist.Gamma(2.0, 1.0), dist.Beta(2.0, 1.0)),
        (dist.Uniform(0.0, 5.0), dist.Kumaraswamy(1.0, 2.0)),
        (dist.Poisson(2.0), dist.Binomial(9, 0.3)),
    ],
)
def test_a_part_of_the_support_only_is_a_warning(prior, q):
    def model():
        x = pyro.sample("x", prior)
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.5))

    report = preflight(Problem(model), lambda: pyro.sample("x", q))
    assert verdicts(report) == ALL_OK | {"supports": "warning"}
    assert report.is_ready
    with pytest.warns(VitoolsWarning, match="draws 'x' from a part of its support only"):
        report.enforce()


@pytest.mark.parametrize(
    ("prior", "q"),
    [
        (dist.Uniform(0.0, 5.0), dist.Uniform(0.0, 6.0)),
        (dist.Beta(2.0, 2.0), dist.LogNormal(0.0, 0.1)),
        (dist.Dirichlet(torch.ones(3)), dist.Normal(torch.ones(3) / 2, 0.01).to_event(1)),
        (dist.Poisson(2.0), dist.LogNormal(0.0, 0.1)),
        (
            dist.Gamma(2.0, 1.0),
            dist.TransformedDistribution(
                dist.Normal(0.0, 0.1), [dist.transforms.AffineTransform(0.0, 0.1)]
            ),
        ),
    ],
)
def test_draws_outside_the_support_are_wrong(prior, q):
    def model():
        x = pyro.sample("x", prior)
        pyro.sample("y", dist.Normal(x.sum(), 1.0), obs=torch.tensor(0.5))

    report = preflight(Problem(model), lambda: pyro.sample("x", q))
    assert verdicts(report)["supports"] == "wrong"
    assert "draws 'x' outside its support" in str(report).replace("\n" + " " * 21, " ")


def test_transformed_draws_are_followed_through_their_maps():
    """torch calls the image of an affine map the whole line."""
    low, high = torch.tensor([0.0, -3.0]), torch.tensor([5.0, 3.0])

    def model():
        with pyro.plate("two", 2):
            pyro.sample("x", dist.Uniform(low, high))
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.5))

    def guide():
        scaled = dist.transforms.AffineTransform(low, high - low)
        with pyro.plate("two", 2):
            pyro.sample("x", dist.TransformedDistribution(dist.Beta(torch.ones(2), 1.0), [scaled]))

    assert verdicts(preflight(Problem(model), guide)) == ALL_OK


def local(data, size=4):
    with pyro.plate("rows", len(data), subsample_size=size) as rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=data[rows])


def test_plates_that_disagree_or_choose_for_themselves():
    def wide(data):
        with pyro.plate("rows", 12):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def apart(data):
        with pyro.plate("others", 4):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    problem = Problem(local, DATA)
    for guide, words in (
        (wide, "takes 12 of 12 rows in plate 'rows', the model 4 of 12"),
        (apart, "chooses its own minibatch of plate 'rows'"),
    ):
        report = preflight(problem, guide)
        assert verdicts(report)["plates"] == "wrong"
        with pytest.raises(OptionError, match=words):
            report.enforce()
    # what would have been asked of the model's run, had it come so far, is not
    assert verdicts(preflight(problem, wide))["scales"] == "not asked"


def test_rows_taken_without_a_weight():
    def model(data):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        chosen = torch.randperm(len(data))[:3]
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=data[chosen])

    problem = Problem(model, DATA)
    with pytest.raises(OptionError, match=r"takes other 3 of 12 rows at each run.*weigh too much "):
        svi(problem, AutoLogisticNormal)

    def weighted(data):
        with pyro.poutine.scale(scale=4.0):
            model(data)

    def noisy(data):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(data)):
            noise = torch.rand(len(data))  # de-quantised, say
            pyro.sample("y", dist.Normal(mean, 1.0), obs=data + noise)

    for sound in (weighted, noisy):
        assert verdicts(preflight(Problem(sound, DATA), _mean_guide))["data"] == "ok"


def _mean_guide(data):
    with pyro.poutine.scale(scale=_mean_guide.scale):
        pyro.sample("mean", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))


_mean_guide.scale = 1.0


def test_a_minibatch_weighted_twice():
    @pyro.poutine.scale(scale=3.0)
    def likelihood(mean, data):
        with pyro.plate("rows", 12, subsample_size=4) as rows:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=data[rows])

    def model(data):
        likelihood(pyro.sample("mean", dist.Normal(0.0, 1.0)), data)

    report = preflight(Problem(model, DATA), _mean_guide)
    assert verdicts(report) == ALL_OK | {"data": "wrong"}
    with pytest.raises(OptionError, match=r"'y' .* is weighted by 9: its plates weigh .* by 3"):
        report.enforce()


def test_what_becomes_of_discrete_latents_is_said():
    def model():
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            w = pyro.sample("w", dist.Bernoulli(0.3))
            n = pyro.sample("n", dist.Poisson(2.0))
            pyro.sample("y", dist.Normal(z + w + n, 1.0), obs=DATA[:3])

    def guide():
        with pyro.plate("rows", 3):
            pyro.sample("w", dist.Bernoulli(0.5))
            pyro.sample("n", dist.Poisson(pyro.param("rate", torch.ones(3), constraints.positive)))

    report = preflight(Problem(model), guide)
    assert verdicts(report) == ALL_OK
    assert report.checks[-1].found == (
        "z summed out; w, n drawn, without a derivative; less noise without w in the guide"
    )


def test_it_takes_two_runs_of_each():
    runs = {"model": 0, "guide": 0}

    def counted(name, function):
        def run(data):
            runs[name] += 1
            return function(data)

        return run

    problem = Problem(counted("model", level), DATA)
    problem.try_on_values()
    runs["model"] = 0
    preflight(problem, counted("guide", draws()))
    assert runs == {"model": 2, "guide": 2}


Y = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)


def powered(y):
    """p(μ) Π_j [p(z_j | μ) p(y_j | z_j)]³, all normal."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()).double(), 1.0))
    with pyro.plate("rows", 3), pyro.poutine.scale(scale=3.0):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


PRECISION = torch.diag(torch.tensor([10.0, 6.0, 6.0, 6.0]).double())
PRECISION[0, 1:] = PRECISION[1:, 0] = -3.0
CENTRE = torch.linalg.solve(PRECISION, torch.cat([torch.zeros(1).double(), 3 * Y]))
LOG_NORMALISER = (
    -19 * math.log(2 * math.pi) / 2
    - 1.5 * (Y @ Y)
    + CENTRE @ PRECISION @ CENTRE / 2
    + (4 * math.log(2 * math.pi) - torch.logdet(PRECISION)) / 2
)
LOST = (PRECISION.diag().log().sum() - torch.logdet(PRECISION)) / 2  # KL of the best independent q


@pytest.mark.parametrize(
    ("guide", "objective", "lost", "sd"),
    [
        (AutoMultivariate, Elbo(8), 0.0, PRECISION.inverse().diag().sqrt()),
        (AutoMeanField, Elbo(8), LOST, PRECISION.diag().rsqrt()),
        (AutoMeanField, Elbo(8, analytic_kl=True), LOST, PRECISION.diag().rsqrt()),
        (AutoMeanField, BetaElbo(num_particles=8), LOST, PRECISION.diag().rsqrt()),
    ],
)
def test_a_scale_of_latents_is_a_power_of_the_density_that_an_automatic_guide_fits(
    guide, objective, lost, sd
):
    problem = Problem(powered, Y)
    report = preflight(problem, guide)
    assert report.is_ready
    assert "power of the density of z" in " ".join(str(report).split())
    fit = svi(problem, guide, objective=objective, seed=0)
    mean, spread = ({k: v.double() for k, v in part.items()} for part in (fit.mean(), fit.sd()))
    found = torch.cat([mean["mu"].reshape(1), mean["z"]])
    assert torch.allclose(found, CENTRE, atol=0.1 * float(sd.min()))
    assert torch.allclose(torch.cat([spread["mu"].reshape(1), spread["z"]]), sd, rtol=0.1)
    bound = fit.elbo(4000, seed=1)
    assert abs(bound.value - float(LOG_NORMALISER - lost)) < 4 * bound.standard_error + 0.02


def test_the_weight_that_a_guide_of_ones_own_leaves_out_is_asked_for():
    def guide(y):
        pyro.sample("mu", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Normal(y, 1.0))

    with pytest.raises(OptionError, match="weighs 'z' by 1, the model by 3"):
        svi(Problem(powered, Y), guide)
