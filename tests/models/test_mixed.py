"""Mixed models: the density that is stated, the truth behind simulated data, and what lme4 finds."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from vitools import Problem, cavi, nuts
from vitools.data import read_table
from vitools.errors import DataError, OptionError
from vitools.models.groups import mixed

LME4 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "lme4"
needs_lme4 = pytest.mark.skipif(not LME4.is_dir(), reason="the data of lme4 are not at hand")


def computed(fit, num_samples=2000):
    """Draws of what the model computes of its latents."""
    return fit.problem.predictive(fit.sample(num_samples, seed=1))


def lme4_says(name: str) -> dict[str, list[float]]:
    """Coefficients, their standard errors, sds (and correlations) of effects, as lme4 printed them."""
    text = (LME4 / "lme4_fits.txt").read_text().split(f"## {name}:")[1].split("##")[0]
    rows = [line.split() for line in text.splitlines() if re.search(r"\d\.\d+$", line.strip())]
    numbers = [[float(word) for word in row] for row in rows if re.match(r"^ *-?\d+\.", row[0])]
    sds = [float(row[-1]) for row in rows if row[0].isdigit()]
    return {"coefficients": numbers[0], "errors": numbers[1], "sds": sds}


def test_the_density_is_the_one_stated():
    data = mixed.simulate(3, 4, seed=2)
    y, x = data.y, data.x
    values = {
        "noise_precision": torch.tensor(2e-3).double(),
        "level": torch.tensor(240.0).double(),
        "slope": torch.tensor([9.0]).double(),
        "half_t_rate": torch.tensor([300.0, 30.0]).double(),
        "effect_precision": torch.tensor([[3e-3, 1e-3], [1e-3, 4e-2]]).double(),
        "effect": torch.tensor([[3.0, 1.0], [-20.0, 4.0], [11.0, -2.0]]).double(),
    }
    s, r = y.std().item(), (y.std() / x.std()).item()
    b, effect = values["half_t_rate"].numpy(), values["effect"]
    precision = values["effect_precision"].numpy()
    own = effect[data.group]
    mean = 240 + 9 * x + own[:, 0] + own[:, 1] * x
    expected = (
        scipy.stats.gamma(0.5, scale=2 / s**2).logpdf(2e-3)
        + scipy.stats.norm(y.mean(), 10 * s).logpdf(240.0)
        + scipy.stats.norm(0, 10 * r).logpdf(9.0)
        + scipy.stats.gamma(0.5, scale=[s**2, r**2]).logpdf(b).sum()
        + scipy.stats.wishart(3, torch.diag(1 / (4 * values["half_t_rate"])).numpy()).logpdf(precision)
        + scipy.stats.multivariate_normal(
            [0, 0], torch.linalg.inv(values["effect_precision"]).numpy()
        ).logpdf(effect.numpy()).sum()
        + scipy.stats.norm(mean.numpy(), 2e-3**-0.5).logpdf(y.numpy()).sum()
    )  # fmt: skip
    problem = Problem(mixed.model, y, data.group, x)
    assert problem.log_joint(values).item() == pytest.approx(expected, rel=1e-12)


def test_the_prior_of_an_sd_is_half_t_and_that_of_the_correlation_flat():
    data = mixed.simulate(2, 3)
    problem = Problem(mixed.model, data.y, data.group, data.x)
    scales = torch.stack([data.y.std(), data.y.std() / data.x.std()])
    generator = np.random.default_rng(0)
    rates = generator.gamma(0.5, scales.numpy() ** 2, (2000, 2))
    # W = diag(4 b)^-½ S diag(4 b)^-½ is Wishart(3, diag(4 b)⁻¹) where S is Wishart(3, I)
    standard = scipy.stats.wishart(3, np.eye(2)).rvs(2000, random_state=generator)
    precision = standard / (4 * np.sqrt(rates[:, :, None] * rates[:, None, :]))
    drawn = problem.predictive({"effect_precision": torch.from_numpy(precision)})
    for d in range(2):
        sd = drawn["effect_sd"][:, d] / scales[d]
        assert scipy.stats.kstest(sd, lambda v: 2 * scipy.stats.t(2).cdf(v) - 1).pvalue > 1e-3
    correlation = drawn["effect_correlation"][:, 0]
    assert scipy.stats.kstest(correlation, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_the_truth_behind_simulated_data_is_within_reach():
    data = mixed.simulate(30, 8, seed=1)
    fit = cavi(Problem(mixed.model, data.y, data.group, data.x), nested=())
    assert fit.status.is_good
    mean, sd, truth = fit.mean(), fit.sd(), data.truth
    for name in ("level", "slope"):
        assert bool(((mean[name] - truth[name]).abs() < 3 * sd[name]).all()), name
    # of an effect and the level only the sum is seen
    own = mean["effect"] + torch.stack([mean["level"], mean["slope"][0]])
    seen = truth["effect"] + torch.stack([truth["level"], truth["slope"][0]])
    z = (own - seen) / sd["effect"]
    assert 0.7 < z.std().item() < 1.3
    derived, covariance = computed(fit), torch.cov(truth["effect"].mT)
    drawn = covariance.diagonal().sqrt()
    truth |= {"effect_sd": drawn, "effect_correlation": covariance[0, 1] / drawn.prod()}
    for name in ("effect_sd", "effect_correlation", "noise_sd"):
        low, high = derived[name].quantile(torch.tensor([0.001, 0.999]).double(), dim=0)
        assert bool(((low < truth[name]) & (truth[name] < high)).all()), name


def test_simulated_effects_have_the_covariance_they_claim():
    truth = mixed.simulate(4000, 2, seed=3).truth
    covariance = torch.cov(truth["effect"].mT)
    sd = covariance.diagonal().sqrt()
    torch.testing.assert_close(sd, truth["effect_sd"], rtol=4 / 4000**0.5, atol=0)
    assert (covariance[0, 1] / sd.prod()).item() == pytest.approx(0.3, abs=4 / 4000**0.5)


@needs_lme4
def test_sleepstudy_as_lme4_has_it():
    columns = {"y": "Reaction", "x": "Days", "group": "Subject"}
    fit = cavi(
        Problem(mixed.model, **read_table(LME4 / "sleepstudy.csv", columns).tensors), nested=()
    )
    said = lme4_says("sleepstudy")
    found = [fit.mean()["level"].item(), fit.mean()["slope"].item()]
    errors = [fit.sd()["level"].item(), fit.sd()["slope"].item()]
    assert found == pytest.approx(said["coefficients"], rel=1e-3)
    assert errors == pytest.approx(said["errors"], rel=0.05)
    derived = computed(fit)
    sds = [*derived["effect_sd"].mT, derived["effect_correlation"][:, 0], derived["noise_sd"]]
    for draws, point in zip(sds, said["sds"], strict=True):
        assert abs(draws.mean() - point) < draws.std()  # a mean beside a mode, and a prior


@needs_lme4
def test_cbpp_as_lme4_has_it():
    columns = {"y": "incidence", "trials": "size", "group": "herd", "fixed": "period"}
    data = read_table(LME4 / "cbpp.csv", columns).tensors
    data["fixed"] = (data["fixed"][:, None] == torch.arange(2, 5)).double()
    fit = cavi(Problem(mixed.binomial, **data), nested=())
    said = lme4_says("cbpp")
    found = torch.cat([fit.mean()["level"][None], fit.mean()["slope"]])
    errors = torch.cat([fit.sd()["level"][None], fit.sd()["slope"]])
    assert bool(((found - torch.tensor(said["coefficients"])).abs() < 0.2 * errors).all())
    torch.testing.assert_close(errors, torch.tensor(said["errors"]).double(), rtol=0.1, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Singular sample detected")  # torch: unsymmetric by rounding
def test_the_fit_is_that_of_the_no_u_turn_sampler():
    data = mixed.simulate(18, 10, seed=0)
    problem = Problem(mixed.model, data.y, data.group, data.x)
    fit, reference = cavi(problem), nuts(problem, num_samples=1500, num_chains=2)
    for name in ("level", "slope", "effect", "noise_precision"):
        mean, sd = reference.mean()[name], reference.sd()[name]
        assert bool(((fit.mean()[name] - mean).abs() < 0.12 * sd).all()), name
        ratio = fit.sd()[name] / sd
        assert ratio.min().item() > 0.88, name
        assert ratio.max().item() < 1.1, name


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"group": torch.zeros(12)},
            DataError,
            "group: expected at least 2 different values, got 1",
        ),
        ({"group": torch.arange(11)}, DataError, r"group: expected shape \[12\].* got \[11\]"),
        ({"group": torch.arange(12) + 0.5}, DataError, "group: 0.5 in row 0"),
        ({"y": torch.full((12,), torch.nan)}, DataError, "y: nan in row 0"),
        ({"y": torch.ones(12)}, DataError, "y: all values are equal"),
        ({"x": torch.ones(12)}, DataError, "x, column 0 .*: all values are equal"),
        ({"x": torch.ones(5, 2)}, DataError, r"x: expected shape \[12, columns\], got \[5, 2\]"),
        ({"effect_scale": -1.0}, OptionError, "effect_scale: expected a positive number, got -1"),
    ],
)
def test_what_the_model_cannot_take_is_refused(change, error, said):
    data = mixed.simulate(3, 4)
    given = {"y": data.y, "group": data.group, "x": data.x} | change
    with pytest.raises(error, match=said):
        Problem(mixed.model, **given)


def test_more_successes_than_trials_are_refused():
    with pytest.raises(DataError, match=r"y: 2 of 1 trials in row 1.*Give the trials"):
        Problem(mixed.binomial, torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))


def test_the_picture_has_a_panel_a_term_and_a_row_a_group():
    data = mixed.simulate(5, 4)
    problem = Problem(mixed.model, data.y, data.group, data.x).with_coords(groups=list("abcde"))
    fit = cavi(problem, max_sweeps=5, nested=())
    (figure,) = mixed.pictures(fit).values()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["level", "slope 1"]
    names = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert names == ["abcde"[i] for i in fit.mean()["effect"][:, 1].argsort()]


def test_a_group_that_the_facts_of_all_rows_lack_is_named():
    data = mixed.simulate(3, 4)
    facts = mixed.facts_of_rows(data.y[:8], data.group[:8])
    with pytest.raises(DataError, match=r"group: 2 in row 8 .* none of the 2 values"):
        Problem(mixed.model, data.y, data.group, facts=facts)
