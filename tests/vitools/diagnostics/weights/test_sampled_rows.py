"""Weights on some of the rows: those of all rows, within the noise that is stated."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, judge
from vitools.diagnostics import on_sampled_rows
from vitools.diagnostics.weights import sampled_rows
from vitools.errors import OptionError
from vitools.posterior import FactorisedPosterior, Status


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


N = 20_000
X = normal(N, 2)
UNIFORM = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SIDES = (torch.sigmoid(X.sum(1)) > UNIFORM).double()
LINE = X.sum(1) + normal(N, seed=2)


def line(x, y):
    """Conjugate: the posterior and the evidence are closed forms."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w, number(1.0)), obs=y)


def logistic(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 2.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def pairs(y):
    """A discrete latent in each row, and a scale above 0."""
    mu = pyro.sample("mu", dist.Normal(number(1.0), 1.0))
    tau = pyro.sample("tau", dist.Gamma(number(2.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(number(0.5)))
        pyro.sample("y", dist.Normal(mu * (2 * z - 1), tau.rsqrt()), obs=y)


def exact_line(x=X, y=LINE):
    """The posterior and log p(y), from the normal equations."""
    precision = torch.eye(2).double() + x.T @ x
    mean = torch.linalg.solve(precision, x.T @ y)
    q = dist.MultivariateNormal(mean, precision_matrix=precision)
    two_pi = torch.log(2 * torch.tensor(torch.pi).double())
    evidence = -0.5 * (len(y) * two_pi + torch.logdet(precision) + y @ y - mean @ (x.T @ y))
    fit = FactorisedPosterior(
        Problem(line, x, y), {"w": q}, float(evidence), engine="cavi", status=Status.CONVERGED
    )
    return fit, float(evidence)


def test_weights_of_an_exact_posterior_are_the_evidence():
    fit, evidence = exact_line()
    held, sample = on_sampled_rows(fit, 2000)
    assert (sample.num_rows, sample.total) == (2000, N)
    assert 0 < sample.noise <= sampled_rows.QUIET
    weights = held.log_weights(400)
    assert float((weights - evidence).abs().max()) < 6 * sample.noise
    assert float((weights - evidence).square().mean().sqrt()) < 3 * sample.noise
    assert held.predictive(3)["y"].shape == (3, 2000)
    assert fit.predictive(3)["y"].shape == (3, N)  # which is as it was


@pytest.mark.slow
@pytest.mark.parametrize("model", [logistic, pairs])
def test_the_noise_is_what_is_stated(model):
    """Over twelve choices of rows, against the weights of all rows."""
    data = (X, SIDES) if model is logistic else ((2 * SIDES - 1) * 1.5 + LINE - X.sum(1),)
    fit = cavi(Problem(model, *data), nested=())
    expected = fit.log_weights(100)
    gaps, stated = [], []
    for seed in range(12):
        held, sample = on_sampled_rows(fit, 1000, seed)
        gaps.append(held.log_weights(100) - expected)
        stated.append(sample.noise)
    gaps = torch.stack(gaps)
    found = float(gaps.square().mean().sqrt())
    assert 0.5 < found / (sum(x * x for x in stated) / 12) ** 0.5 < 2
    error = gaps.mean(1).std() / 12**0.5
    assert abs(float(gaps.mean())) < 4 * float(error)  # unbiased over the rows


def test_the_judge_says_on_how_many_rows():
    fit, evidence = exact_line()
    found = judge(fit, num_rows=2000)
    assert "on weights of 2,000 of 20,000 rows (noise 0." in found.verdict.reason
    assert found.verdict.reason.endswith("other modes were not looked for")
    assert abs(found.bound.value - evidence) < 4 * found.bound.standard_error
    said = float(found.verdict.reason.partition("(noise ")[2].split()[0])
    assert found.bound.standard_error > 0.8 * said  # one digit is said
    assert found.evidence.lower[1].standard_error >= found.bound.standard_error * 0.9
    assert found.scan is None
    assert found.khat.value < 0.5


def test_by_default_where_there_are_many(monkeypatch):
    fit, _ = exact_line()
    assert on_sampled_rows(fit)[1] is None
    monkeypatch.setattr(sampled_rows, "LARGE", N)
    monkeypatch.setattr(sampled_rows, "ROWS", 500)
    _, sample = on_sampled_rows(fit)
    assert sample.total == N


def test_more_rows_are_taken_until_the_noise_is_small(monkeypatch):
    fit, _ = exact_line()
    quiet = on_sampled_rows(fit, 2000)[1].noise
    monkeypatch.setattr(sampled_rows, "QUIET", 0.7 * quiet)
    assert on_sampled_rows(fit, 2000)[1].num_rows == 8000
    monkeypatch.setattr(sampled_rows, "QUIET", 0.0)
    same, sample = on_sampled_rows(fit, 2000)  # all rows then
    assert same is fit
    assert sample is None


def test_one_row_that_outweighs_the_others_is_not_missed():
    """A row a thousand times as large as the others is in one sample of fifty; its share of the log
    likelihood bends by more nats over the posterior than all others' together."""
    x, y = X.clone(), SIDES.clone()
    x[17], y[17] = number([600.0, -600.0]), 1.0
    fit = cavi(Problem(logistic, x, y), nested=())
    for seed in range(3):
        held, sample = on_sampled_rows(fit, 400, seed)
        if sample is None:  # all rows then
            assert held is fit
            continue
        gap = held.log_weights(200) - fit.log_weights(200)
        assert float(gap.square().mean().sqrt()) < 3 * sampled_rows.QUIET


def by_mean(y):
    mu = pyro.sample("mu", dist.Normal(y.mean(), 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, number(1.0)), obs=y)


def centred(y):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, number(1.0)), obs=y - y.mean())


def levels(y):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 1.0))
    with pyro.plate("rows", len(y)):
        x = pyro.sample("x", dist.Normal(mu, number(1.0)))
        pyro.sample("y", dist.Normal(x, number(1.0)), obs=y)


@pytest.mark.parametrize("model", [by_mean, centred, levels])
def test_where_some_rows_cannot_stand_for_all_all_are_taken(model):
    fit = cavi(Problem(model, LINE[:2000]), nested=())
    same, sample = on_sampled_rows(fit, 400)
    assert same is fit
    assert sample is None


@pytest.mark.parametrize("wrong", [0, 5, -1, 2.5, "all", True])
def test_a_number_of_rows_that_is_none_is_refused(wrong):
    fit, _ = exact_line(X[:100], LINE[:100])
    with pytest.raises(OptionError, match=r"^num_rows"):
        judge(fit, num_rows=wrong)
