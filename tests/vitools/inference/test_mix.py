"""Mixtures of fits against quadrature and closed forms, and what they refuse."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta
from two_modes import CLUSTERS, SQUARE, normal, sides, tensor, truth

from vitools import judge, load, mix, save, svi
from vitools.diagnostics import Grade
from vitools.errors import NotSupportedError, NumericalError, OptionError
from vitools.guides import AutoMultivariate
from vitools.posterior import (
    DrawsPosterior,
    FactorisedPosterior,
    MixturePosterior,
    Posterior,
    Status,
)
from vitools.problem import Problem


@pytest.mark.parametrize("problem", [CLUSTERS, SQUARE], ids=["clusters", "square"])
def test_fits_of_two_modes_get_the_modes_masses(problem):
    true = truth(problem)
    mixed = mix(sides(problem, widened=1.1), seed=3)
    error, evidence = float(mixed.weight_errors[0]), mixed.least_evidence
    assert 0 < error < 0.01
    assert 0 < evidence.standard_error < 0.01
    assert float(mixed.weights[0]) == pytest.approx(true.below, abs=4 * error)
    assert evidence.value == pytest.approx(true.log_evidence, abs=4 * evidence.standard_error)
    (low, narrow), (high, wide) = true.sides
    off = 4 * error * (high - low)
    assert float(mixed.mean()["x"]) == pytest.approx(true.mean, abs=off)
    within = true.below * narrow**2 + (1 - true.below) * wide**2
    variance = true.sd**2 + (1.1**2 - 1) * within
    assert float(mixed.sd()["x"] ** 2) == pytest.approx(variance, abs=off * (high - low))
    x = tensor(low, high)
    expected = [
        fit.log_prob({"x": x}) + w.log()
        for w, fit in zip(mixed.weights, mixed.components, strict=True)
    ]
    torch.testing.assert_close(mixed.log_prob({"x": x}), torch.logaddexp(*expected))


def test_errors_of_weights_and_evidence_are_those_of_repetitions():
    fits = sides(CLUSTERS, widened=1.3)
    mixed = [mix(fits, num_samples=200, seed=seed) for seed in range(40)]
    for values, errors in (
        ([m.weights[0] for m in mixed], [m.weight_errors[0] for m in mixed]),
        ([m.least_evidence.value for m in mixed], [m.least_evidence.standard_error for m in mixed]),
    ):
        spread = float(torch.as_tensor(values).std())
        stated = float(torch.as_tensor(errors).square().mean().sqrt())
        # the sd of 40 values is known to 11 %, the jackknife's of 20 groups to 16 % each
        assert stated == pytest.approx(spread, rel=0.4)


def test_the_mixture_is_trusted_where_no_fit_is():
    fits = sides(CLUSTERS, widened=1.2)
    assert all(judge(fit).verdict.grade is not Grade.TRUST for fit in fits.values())
    assert judge(mix(fits)).verdict.grade is Grade.TRUST


def test_a_fit_inside_a_better_one_gets_nothing():
    (left, right), true = sides(CLUSTERS, widened=1.0).values(), truth(CLUSTERS)
    posterior = mix({"left": left, "right": right})
    narrow = normal(CLUSTERS, *(true.sides[0][0], true.sides[0][1] / 3))
    again = mix({"narrow": narrow, "posterior": posterior})
    assert "narrow 0.0" in again.detail
    assert float(again.weights.max()) > 0.99


def test_copies_share_their_weight_and_the_posterior_itself_is_exact():
    p = Problem(beta_bernoulli)
    fits = {name: beta(p, 3.0, 2.0) for name in ("one", "other")}
    mixed = mix(fits, num_samples=100)
    assert mixed.weights.tolist() == pytest.approx([0.5, 0.5])
    assert mixed.least_evidence.is_exact
    assert mixed.least_evidence.value == pytest.approx(-torch.tensor(12.0).log().item())


def test_two_betas_whose_mixture_is_the_posterior():
    """p (1 - p) [p + (1 - p)]: Beta(3, 2) and Beta(2, 3) in halves are Beta(2, 2)."""
    p = Problem(one_of_each)
    mixed = mix({"high": beta(p, 3.0, 2.0), "low": beta(p, 2.0, 3.0)}, num_samples=2000)
    assert mixed.weights.tolist() == pytest.approx(
        [0.5, 0.5], abs=4 * float(mixed.weight_errors[0])
    )
    assert mixed.least_evidence.value == pytest.approx(-torch.tensor(6.0).log().item(), abs=1e-9)


def test_discrete_latents_keep_their_factors():
    z = dist.Categorical(tensor(0.25, 0.75))
    parts = {
        name: FactorisedPosterior(
            CLUSTERS,
            {"x": dist.Normal(mean, sd), "z": z},
            0.0,
            engine="by hand",
            status=Status.CONVERGED,
        )
        for name, (mean, sd) in zip(("a", "b"), truth(CLUSTERS).sides, strict=True)
    }
    torch.testing.assert_close(
        mix(parts).marginal("z").log_prob(torch.tensor(1)).exp(), tensor(0.75)[0]
    )


def test_it_is_saved_and_loaded(tmp_path):
    guide = svi(CLUSTERS, AutoMultivariate, max_steps=40)
    other = svi(CLUSTERS, own_guide, max_steps=40)
    mixed = mix({**sides(CLUSTERS), "guide": guide, "own": other}, num_samples=200, seed=5)
    save(mixed, tmp_path / "mix.safetensors")
    again = load(tmp_path / "mix.safetensors", CLUSTERS, guide=own_guide)
    assert isinstance(again, MixturePosterior)
    assert (again.engine, again.detail, again.seed) == ("mix", mixed.detail, 5)
    assert again.least_evidence == mixed.least_evidence
    assert torch.equal(again.weight_errors, mixed.weight_errors)
    assert again.fingerprint == mixed.fingerprint
    assert torch.equal(again.sample(50)["x"], mixed.sample(50)["x"])


def test_one_seed_gives_one_mixture():
    fits = sides(SQUARE)
    one, again, other = (mix(fits, num_samples=200, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint != other.fingerprint


def beta_bernoulli():
    p = pyro.sample("p", dist.Beta(tensor(1.0)[0], 1.0))
    with pyro.plate("flips", 3):
        pyro.sample("heads", dist.Bernoulli(p), obs=tensor(1.0, 1.0, 0.0))


def one_of_each():
    p = pyro.sample("p", dist.Beta(tensor(1.0)[0], 1.0))
    with pyro.plate("flips", 2):
        pyro.sample("heads", dist.Bernoulli(p), obs=tensor(1.0, 0.0))


def own_guide():
    loc = pyro.param("loc", tensor(0.0)[0])
    pyro.sample("x", dist.Normal(loc, 2.0))


def beta(problem, a, b):
    q = torch.distributions.Beta(tensor(a)[0], tensor(b)[0])
    return FactorisedPosterior(problem, {"p": q}, 0.0, engine="by hand", status=Status.CONVERGED)


def with_weight():
    """A parameter of the model's own, which each run of svi trains for itself."""
    weight = pyro.param("weight", tensor(0.5)[0])
    x = pyro.sample("x", dist.Normal(weight, tensor(1.0)[0]))
    pyro.sample("y", dist.Normal(x, 1.0), obs=tensor(1.5)[0])


def wider():
    x = pyro.sample("x", dist.Normal(tensor(0.0)[0], 9.0))
    pyro.sample("y", dist.Normal(x, 1.0), obs=tensor(1.0)[0])


def narrower():
    x = pyro.sample("x", dist.Normal(tensor(0.0)[0], 1.0))
    pyro.sample("y", dist.Normal(x, 1.0), obs=tensor(1.0)[0])


def only_discrete():
    z = pyro.sample("z", dist.Bernoulli(tensor(0.5)[0]))
    pyro.sample("y", dist.Normal(z, 1.0), obs=tensor(1.0)[0])


class Nowhere(Posterior):
    """Its density is no number."""

    def sample_with_log_prob(self, num_samples, seed=0):
        return {"x": torch.zeros(num_samples)}, torch.zeros(num_samples)

    def log_prob(self, values):
        return torch.full_like(values["x"], torch.nan)

    def _state(self):
        return {}, {}

    @classmethod
    def _restore(cls, saved):
        raise NotImplementedError


def wrong_fits():
    """Arguments, the kind of error, and words that it says."""
    one = normal(CLUSTERS, 0.0, 1.0)
    draws = DrawsPosterior(CLUSTERS, {"x": torch.zeros(1, 5)}, engine="nuts", status=Status.SAMPLED)
    point = svi(SQUARE, AutoDelta, max_steps=2)
    trained = [svi(Problem(with_weight), AutoMultivariate, max_steps=steps) for steps in (20, 60)]
    flat = [normal(Problem(model), 0.0, 1.0) for model in (narrower, wider)]
    discrete = FactorisedPosterior(
        Problem(only_discrete),
        {"z": dist.Bernoulli(tensor(0.5)[0])},
        0.0,
        engine="cavi",
        status=Status.CONVERGED,
    )
    nowhere = Nowhere(CLUSTERS, engine="test", status=Status.CONVERGED)
    return [
        ([one, one], OptionError, "fits: expected {name: fit}, got a list. Give each fit a name"),
        (one, OptionError, "fits: expected {name: fit}, got one fit"),
        ({}, OptionError, "expected two or more to mix, got 0."),
        ({"one": one}, OptionError, "expected two or more to mix, got 1."),
        ({"one": one, "two": 3.0}, OptionError, "fit 'two': expected a Posterior"),
        (
            {"one": one, "two": normal(SQUARE, 0.0, 1.0)},
            OptionError,
            "'one' and 'two' are fits of different problems",
        ),
        (
            dict(zip("ab", flat, strict=True)),
            OptionError,
            "'a' and 'b' have the same sites and data, but their models give different densities",
        ),
        (
            dict(zip("ab", trained, strict=True)),
            OptionError,
            "'a' and 'b' are fits of different models: the parameters weight have other values",
        ),
        ({"one": discrete, "two": discrete}, OptionError, "only discrete latents"),
        (
            {"one": one, "nuts": draws},
            NotSupportedError,
            "fit 'nuts' (nuts) is a sampler's draws, which have no density to mix. Leave it out.",
        ),
        (
            {"one": normal(SQUARE, 0.0, 1.0), "map": point},
            NotSupportedError,
            "fit 'map' is a point estimate of x",
        ),
        (
            {"one": one, "two": nowhere},
            NumericalError,
            "the density of fit 'two' is NaN or infinite at 4000 of 4000 draws of fit 'one'",
        ),
    ]


def test_what_cannot_be_mixed_is_refused_by_name():
    for fits, kind, words in wrong_fits():
        with pytest.raises(kind) as refusal:
            mix(fits)
        assert words in str(refusal.value)
        assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_samples": 99}, "num_samples: expected a whole number of at least 100, got 99."),
        (
            {"num_samples": 1000.0},
            "num_samples: expected a whole number of at least 100, got 1000.0.",
        ),
        ({"num_samples": True}, "num_samples: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"seed": 0.5}, "seed: expected a whole number from 0"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(OptionError) as refusal:
        mix(sides(CLUSTERS), **options)
    assert words in str(refusal.value)


def test_a_fit_that_cannot_be_scored_is_refused():
    class Own(Nowhere):
        def log_prob(self, values):
            raise NotSupportedError("guide own draws 'u', so its density is not available.")

    fits = {
        "one": normal(CLUSTERS, 0.0, 1.0),
        "own": Own(CLUSTERS, engine="test", status=Status.CONVERGED),
    }
    with pytest.raises(
        NotSupportedError, match=r"cannot be scored at the draws of the others.*'u'"
    ):
        mix(fits)
