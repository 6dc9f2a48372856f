"""q(z) q(w | z) against enumeration of z times the closed form of the rest."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, cavi, load, save
from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.engines.cavi.coordinate_ascent import CoordinateAscent, Schedule
from vitools.errors import NotConjugateError, NotSupportedError, VitoolsWarning
from vitools.posterior import Status


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


MEANS = torch.tensor([[-1.0, 0.5, 2.0], [0.0, 3.0, -2.0]], dtype=torch.float64)
SCALES = torch.tensor([[0.05, 1.0, 3.0], [2.0, 0.3, 0.5]], dtype=torch.float64)
Y = torch.tensor([1.2, 0.7, 1.9, -0.3], dtype=torch.float64)


def two_selectors(y):
    """One Gaussian, its location and scale selected by two discrete sites that depend on each other."""
    a = pyro.sample("a", dist.Bernoulli(0.3))
    chances = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    b = pyro.sample("b", dist.Categorical(chances[a.long()]))
    w = pyro.sample("w", dist.Normal(MEANS[a.long(), b], SCALES[a.long(), b]))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(w, 0.7), obs=y)


def exact_two_selectors(y):
    """log evidence, posterior chances of (a, b), mean and sd of w."""
    cases = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]) * torch.tensor([[0.7], [0.3]])
    logs, means, variances = [], [], []
    for a, b in itertools.product(range(2), range(3)):
        covariance = 0.49 * torch.eye(len(y)) + SCALES[a, b] ** 2
        marginal = td.MultivariateNormal(MEANS[a, b].expand(len(y)), covariance)
        logs.append(marginal.log_prob(y) + cases[a, b].log())
        precision = len(y) / 0.49 + SCALES[a, b] ** -2
        means.append((y.sum() / 0.49 + MEANS[a, b] / SCALES[a, b] ** 2) / precision)
        variances.append(1 / precision)
    logs, means, variances = map(torch.stack, (logs, means, variances))
    chances = logs.softmax(0)
    mean = (chances * means).sum()
    variance = (chances * (variances + (means - mean) ** 2)).sum()
    return logs.logsumexp(0), chances.reshape(2, 3), mean, variance.sqrt()


def test_one_element_is_exact_with_all_that_select_it(tmp_path):
    evidence, chances, mean, sd = exact_two_selectors(Y)
    problem = Problem(two_selectors, Y)
    fit = cavi(problem, tol=1e-14)
    assert fit.bound == pytest.approx(float(evidence), rel=1e-9)
    torch.testing.assert_close(fit.marginal("a").probs, torch.stack([*chances.sum(1)]))
    torch.testing.assert_close(fit.marginal("b").probs, chances.sum(0))
    torch.testing.assert_close(fit.mean()["w"], mean)
    torch.testing.assert_close(fit.sd()["w"], sd)
    weights = fit.log_weights(50, seed=1)  # every draw of an exact posterior has the same
    torch.testing.assert_close(weights, evidence.expand(50))
    save(fit, tmp_path / "fit")
    torch.testing.assert_close(load(tmp_path / "fit", problem).log_weights(50, seed=1), weights)


def test_named_or_by_default_it_is_the_same_factor():
    bounds = [
        cavi(Problem(two_selectors, Y), joint=joint, tol=1e-14).bound
        for joint in (None, [("a", "b", "w")], [("w", "b", "a")])
    ]
    assert bounds == pytest.approx([bounds[0]] * 3, rel=1e-12)


def slabs_in_a_plate(y):
    precision = torch.tensor([400.0, 0.25])
    with pyro.plate("groups", y.shape[1]):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        w = pyro.sample("w", dist.Normal(0.0, precision[z.long()].rsqrt()))
        with pyro.plate("rows", y.shape[0], dim=-2):
            pyro.sample("y", dist.Normal(w, 1.0), obs=y)


@pytest.mark.parametrize("repeats", [1, 3])
def test_independent_elements_are_exact_rows_of_equal_data_too(repeats):
    y = (2 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0))).repeat(1, repeats)
    fit = cavi(Problem(slabs_in_a_plate, y), tol=1e-14)
    log = torch.stack(
        [
            td.MultivariateNormal(torch.zeros(3), torch.eye(3) + 1 / p).log_prob(y.mT)
            + chance.log()
            for p, chance in zip(torch.tensor([400.0, 0.25]), torch.tensor([0.6, 0.4]), strict=True)
        ]
    )
    assert fit.bound == pytest.approx(float(log.logsumexp(0).sum()), rel=1e-9)
    torch.testing.assert_close(fit.marginal("z").mean, log.softmax(0)[1])


def regression(x, y, is_slab):
    with pyro.plate("columns", x.shape[1]):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        scale = torch.tensor([0.05, 2.0])[z.long()] if is_slab else torch.ones(())
        w = pyro.sample("w", dist.Normal(0.0, scale))
    with pyro.plate("rows", len(y)):
        effect = w if is_slab else z * w
        pyro.sample("y", dist.Normal(x @ effect, 1.0), obs=y)


def evidence_of_regression(x, y, is_slab):
    logs = []
    for z in itertools.product((0, 1), repeat=x.shape[1]):
        on = torch.tensor(z)
        scale = torch.tensor([0.05, 2.0])[on] if is_slab else on.double()
        covariance = torch.eye(len(y)) + (x * scale) @ (x * scale).T
        logs.append(td.MultivariateNormal(torch.zeros(len(y)), covariance).log_prob(y))
    return float(torch.stack(logs).logsumexp(0)) - x.shape[1] * math.log(2)


def design(rows, columns, orthogonal=False):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, columns, generator=generator)
    if orthogonal:
        x = 3 * torch.linalg.qr(x)[0]
    w = torch.tensor([1.5, 0.0, -0.7, 0.0])[:columns]
    return x, x @ w + torch.randn(rows, generator=generator)


def sweeps(x, y, is_slab, count):
    """Bounds of plain sweeps (of z times w no Problem is made: enumeration has no matrix products)."""
    model = ConjugateModel(regression, (x, y, is_slab), joint=[("z", "w")])
    initialise(model, 0)
    bounds = []
    for _ in range(count):
        model.sweep()
        bounds.append(model.elbo())
    return bounds


@pytest.mark.parametrize("is_slab", [True, False])
def test_a_regression_on_orthogonal_columns_is_exact(is_slab):
    """Spike and slab, and effects that a gate multiplies by nothing (Titsias and Lázaro-Gredilla 2011)."""
    x, y = design(12, 4, orthogonal=True)
    (*_, bound) = sweeps(x, y, is_slab, 3)
    assert bound == pytest.approx(evidence_of_regression(x, y, is_slab), rel=1e-9)


@pytest.mark.parametrize("is_slab", [True, False])
def test_columns_that_share_data_are_updated_in_turn_and_the_bound_rises(is_slab):
    x, y = design(12, 4)
    bounds = torch.tensor(sweeps(x, y, is_slab, 30))
    assert bool((bounds.diff() >= -1e-10).all())
    evidence = evidence_of_regression(x, y, is_slab)
    assert evidence - 1.5 < float(bounds[-1]) < evidence


def test_its_weights_average_above_the_bound_of_the_factors():
    x, y = design(12, 4)
    problem = Problem(regression, x, y, True)
    fit = cavi(problem)
    with pytest.warns(VitoolsWarning, match="z selects the prior of w"):
        assert cavi(problem, joint=(), restarts=10).bound < fit.bound - 0.1
    weights = fit.log_weights(4000, seed=1)
    error = float(weights.std()) / 4000**0.5
    assert float(weights.mean()) > fit.bound - 4 * error  # the judge's bound sums z out


@pytest.mark.parametrize("is_slab", [True, False])
def test_several_starts_in_a_batch_are_those_of_each_alone(is_slab):
    x, y = design(12, 4)
    schedule = Schedule(0.0, 4, True, None, None)

    def histories(seeds):
        model = ConjugateModel(regression, (x, y, is_slab), joint=[("z", "w")])
        with torch.no_grad():
            ascent = CoordinateAscent(model, seeds, schedule)
            assert ascent.count == len(seeds)
            ascent.run(None, 0.0)
            return [run.history.elbo for run in ascent.runs(Status.STOPPED_AT_LIMIT)]

    together = histories([0, 1])
    assert together[0] == pytest.approx(histories([0])[0], rel=1e-8)
    assert together[1] == pytest.approx(histories([1])[0], rel=1e-8)


def test_it_begins_at_a_fit_and_at_values():
    problem = Problem(two_selectors, Y)
    fit = cavi(problem, tol=1e-14)
    for start in (fit, {"w": torch.tensor(2.0)}, {"a": torch.tensor(1.0)}):
        assert cavi(problem, start=start, tol=1e-14).bound == pytest.approx(fit.bound, rel=1e-9)


def test_cases_beside_other_elements_keep_the_sites_apart():
    """z of the first column shifts all data: a term holds it beside w of every column."""
    x, y = design(12, 4)

    def model():
        with pyro.plate("columns", 4):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            w = pyro.sample("w", dist.Normal(0.0, torch.tensor([0.05, 2.0])[z.long()]))
        with pyro.plate("rows", 12):
            pyro.sample("y", dist.Normal(x @ w + 3 * z[0], 1.0), obs=y)

    assert [block.names for block in ConjugateModel(model).blocks] == [("z",), ("w",)]
    with pytest.raises(NotConjugateError, match="different elements of sites that share a factor"):
        ConjugateModel(model, joint=[("z", "w")])


def test_elements_updated_in_turn_are_not_taken_in_minibatches():
    x, y = design(12, 4)
    problem = Problem(regression, x, y, True)
    with pytest.raises(NotSupportedError, match=r"'z, w' are updated one after another.*joint="):
        cavi(problem, batch_rows=6)


def one_switch_for_a_plate(y):
    z = pyro.sample("z", dist.Bernoulli(0.5))
    with pyro.plate("groups", len(y)):
        w = pyro.sample("w", dist.Normal(0.0, torch.tensor([0.1, 2.0])[z.long()]))
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


def test_sites_of_other_plates_are_refused_by_name():
    with pytest.raises(NotSupportedError, match=r"'z', 'w'.*of the same plates"):
        cavi(Problem(one_switch_for_a_plate, Y), joint=[("z", "w")])


def two_gated(y):
    """One discrete site selects the priors of two Gaussians, of which one shares its factor."""
    with pyro.plate("groups", y.shape[1]):
        z = pyro.sample("z", dist.Bernoulli(0.4)).long()
        w = pyro.sample("w", dist.Normal(torch.tensor([-2.0, 2.0])[z], 0.5))
        v = pyro.sample("v", dist.Normal(w, torch.tensor([0.2, 0.6])[z]))
        with pyro.plate("rows", y.shape[0], dim=-2):
            pyro.sample("y", dist.Normal(v, 0.5), obs=y)


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_gate_that_selects_one_more_prior_outside_it(restarts):
    y = 2 + torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(VitoolsWarning, match=r"selects the prior of"):
        fit = cavi(Problem(two_gated, y), restarts=restarts)
    logs = [
        td.MultivariateNormal(
            torch.full((3,), mean), 0.25 * torch.eye(3) + 0.25 + scale**2
        ).log_prob(y.mT)
        + math.log(chance)
        for mean, scale, chance in ((-2.0, 0.2, 0.6), (2.0, 0.6, 0.4))
    ]
    evidence = float(torch.stack(logs).logsumexp(0).sum())
    assert evidence - 6 < fit.bound < evidence


def test_a_gated_scale_under_counts_has_factors_apart_and_says_so():
    """exp(w) in the density of w's own data leaves no normal in each case: q(z) q(w), with a notice."""
    counts = torch.tensor([1.0, 0.0, 9.0, 2.0], dtype=torch.float64)
    scale = torch.tensor([0.3, 2.0], dtype=torch.float64)

    def model():
        with pyro.plate("rows", len(counts)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.7, 0.3], dtype=torch.float64)))
            w = pyro.sample("w", dist.Normal(0.0, scale[z]))
            pyro.sample("y", dist.Poisson(w.exp()), obs=counts)

    w = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    prior = torch.stack([dist.Normal(0.0, s).log_prob(w) for s in scale])
    prior = torch.logaddexp(prior[0] + math.log(0.7), prior[1] + math.log(0.3))
    rows = [prior + dist.Poisson(w.exp()).log_prob(y) for y in counts]
    evidence = sum(float(torch.logsumexp(row, 0) + math.log(w[1] - w[0])) for row in rows)
    with pytest.warns(VitoolsWarning, match="z selects the prior of w"):
        fit = cavi(Problem(model))
    assert evidence - 4.0 < fit.bound < evidence
    assert "q(z) · q(w) factorised though z selects the prior of w" in fit.detail
    weights = (fit.log_weights(20000) - evidence).exp()
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / math.sqrt(20000)


def test_a_gate_below_a_curved_predictor_is_refused_in_words():
    x, y = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)

    def model():
        z = pyro.sample("z", dist.Bernoulli(0.3))
        w, b = pyro.sample("w", dist.Normal(0.0, 1 + z)), pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Bernoulli(logits=w * x + b), obs=y)

    with pytest.raises(
        NotConjugateError, match="'w' is not Gaussian but Normal in each case of 'z'"
    ):
        cavi(Problem(model), joint=[("z", "w")])
