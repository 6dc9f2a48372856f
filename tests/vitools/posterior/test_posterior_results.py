"""Estimates, statuses and histories; what a printed posterior looks like."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools.errors import NotSupportedError, OptionError
from vitools.posterior import DrawsPosterior, Estimate, FactorisedPosterior, History, Status
from vitools.problem import Problem


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(-3456.213, 0.021), "-3456.21 ± 0.02"),
        (Estimate(-12.79), "-12.79 (exact)"),
        (Estimate(-8123.44, 1.23), "-8123.4 ± 1.2"),
        (Estimate(-8123.44, 12.3), "-8123 ± 12"),
        (Estimate(-8123.44, 123.0), "-8123 ± 123"),
        (Estimate(1.23456, 0.00345), "1.235 ± 0.003"),
        (Estimate(1.0, 0.15), "1.00 ± 0.15"),
        (Estimate(1.0, 2e-10), "1.00000000 ± 2e-10"),
        (Estimate(1.0, math.inf), "1.00 ± ?"),
        (Estimate(-math.inf, math.nan), "-inf ± ?"),
    ],
)
def test_estimates_print_their_uncertainty(estimate, words):
    assert str(estimate) == words


def test_estimate_of_a_mean():
    terms = torch.tensor([1.0, 2.0, 4.0])
    estimate = Estimate.of_mean(terms)
    assert estimate.value == pytest.approx(7 / 3)
    variance = ((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 2
    assert estimate.standard_error == pytest.approx(math.sqrt(variance / 3))
    assert not estimate.is_exact
    assert Estimate.of_mean(torch.ones(1)).standard_error == math.inf


def test_every_status_has_words_and_advice():
    assert {s for s in Status if s.is_good} == {Status.CONVERGED, Status.SAMPLED, Status.EXACT}
    for status in Status:
        assert status.label == status.name.lower().replace("_", " ")
        assert status.advice.endswith((".", ")"))
    assert len({status.advice for status in Status}) == len(Status)


def test_history_round_trip():
    history = History.of_rows([(-10.0 + i, 0.1 * i) for i in range(3)])
    assert history == History([1, 2, 3], [-10.0, -9.0, -8.0], [0.0, 0.1, 0.2])
    assert len(history) == 3
    assert History.from_tensors(history.tensors()) == history
    assert History.from_tensors(History().tensors()) == History()


LONG = (
    "a_site_with_a_name_that_is_rather_longer_than_anyone_would_want_to_read_in_a_table_of_results"
)


def many_sites():
    for i in range(30):
        pyro.sample(f"w{i}_of_30", dist.Normal(torch.zeros(9), 1.0).to_event(1))
    x = pyro.sample(LONG, dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.0))


def test_a_printed_posterior_fits_on_a_screen():
    problem = Problem(many_sites)
    standard = td.Independent(td.Normal(torch.zeros(9), torch.ones(9)), 1)
    factors = {f"w{i}_of_30": standard for i in range(30)}
    fit = FactorisedPosterior(
        problem,
        {LONG: td.Normal(torch.tensor(0.5), torch.tensor(1.0))} | factors,
        bound=-1.5,
        engine="cavi",
        status=Status.NOT_MIXED,
        detail="a detail that the engine thought worth many words, " * 3,
        seconds=1.25,
    )
    lines = str(fit).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100
    assert lines[0] == "cavi fit of model 'many_sites' in 1.2 s"
    assert "bound:  -1.50 (exact)" in lines
    assert any("more rows" in line for line in lines)
    assert repr(fit) == "<cavi posterior of 'many_sites': not mixed>"


def normal_mean(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_a_printed_posterior_in_full():
    problem = Problem(normal_mean, torch.ones(3))
    # 3 rows: precision 4, mean 3/4; log p(y) by the closed form
    covariance = torch.eye(3) + torch.ones(3, 3)
    evidence = td.MultivariateNormal(torch.zeros(3), covariance).log_prob(torch.ones(3))
    exact = td.Normal(torch.tensor(0.75), torch.tensor(0.5))
    fit = FactorisedPosterior(
        problem, {"mu": exact}, float(evidence), engine="cavi", status=Status.CONVERGED
    )
    assert str(fit).splitlines() == [
        "cavi fit of model 'normal_mean' in 0.0 s",
        "status: converged. The stopping rule was met; compare() says whether to trust",
        "  the fit.",
        f"bound:  {float(evidence):.2f} (exact)",
        "site        mean        sd",
        "mu          0.75       0.5",
    ]


def test_draws_print_without_a_bound():
    problem = Problem(normal_mean, torch.ones(3))
    draws = torch.arange(8.0).reshape(2, 4)
    fit = DrawsPosterior(problem, {"mu": draws}, engine="nuts", status=Status.SAMPLED)
    assert "bound" not in str(fit)
    assert str(fit).splitlines()[-1].split() == ["mu", "3.5", "2.4"]


@pytest.mark.parametrize("count", [0, -3, 2.0, True, None])
def test_impossible_numbers_of_draws_are_refused(count):
    problem = Problem(normal_mean, torch.ones(3))
    fit = DrawsPosterior(problem, {"mu": torch.zeros(1, 2)}, engine="nuts", status=Status.SAMPLED)
    with pytest.raises(OptionError, match="expected a positive number of draws"):
        fit.sample(count)


def test_unknown_sites_are_refused_with_a_hint():
    problem = Problem(normal_mean, torch.ones(3))
    fit = DrawsPosterior(problem, {"mu": torch.zeros(1, 2)}, engine="nuts", status=Status.SAMPLED)
    with pytest.raises(OptionError, match=r"no latent site 'nu' .* Did you mean 'mu'"):
        fit.marginal("nu")
    with pytest.raises(NotSupportedError, match="marginal of 'mu' under nuts has no closed form"):
        fit.marginal("mu")
