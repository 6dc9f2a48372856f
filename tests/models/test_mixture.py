"""Clusters: the density that is stated, scikit-learn's own, the truth, what is refused."""

import pytest
import scipy.stats
import torch
from sklearn.mixture import GaussianMixture

from vitools import Problem, cavi
from vitools.errors import DataError, OptionError
from vitools.models.facts import Facts
from vitools.models.mixtures import mixture


def test_the_density_is_the_one_stated():
    data = mixture.simulate(12, seed=3).data
    values = {
        "weights": torch.tensor([0.3, 0.7]).double(),
        "precision": torch.tensor(
            [[[9.0, 0.2], [0.2, 0.05]], [[5.0, -0.1], [-0.1, 0.03]]]
        ).double(),
        "location": torch.tensor([[2.1, 54.0], [4.0, 79.0]]).double(),
    }
    S, middle = torch.cov(data.mT), data.mean(0)
    scale = torch.linalg.inv(4 * S / 2).numpy()
    expected = scipy.stats.dirichlet([1, 1]).logpdf([0.3, 0.7])
    rows = 0.0
    for w, precision, location in zip(*values.values(), strict=True):
        expected += scipy.stats.wishart(4, scale).logpdf(precision.numpy())
        expected += scipy.stats.multivariate_normal(middle, 4 * S).logpdf(location)
        part = scipy.stats.multivariate_normal(location, torch.linalg.inv(precision).numpy())
        rows = rows + w * torch.from_numpy(part.pdf(data))
    problem = Problem(mixture.model, data)
    found = problem.log_joint(values).item()
    assert found == pytest.approx(expected + rows.log().sum().item(), rel=1e-10)


def test_clusters_are_those_of_scikit_learn_and_of_the_truth():
    clusters = mixture.simulate(300, seed=0)
    problem = Problem(mixture.model, clusters.data)
    fit = cavi(problem)
    assert fit.status.is_good
    mean, sd = fit.mean(), fit.sd()
    order = mean["location"][:, 0].argsort()
    other = GaussianMixture(2, random_state=0, n_init=3).fit(clusters.data)
    theirs = torch.from_numpy(other.means_)[other.means_[:, 0].argsort()]
    location, width = mean["location"][order], sd["location"][order]
    assert bool(((location - theirs).abs() < 0.5 * width).all())
    assert bool(((location - clusters.truth["location"]).abs() < 4 * width).all())
    shares = mixture.responsibilities(fit)[:, order]
    assert (shares.argmax(1) == clusters.component).double().mean() > 0.97


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_picture_has_a_curve_or_an_ellipse_a_component(columns):
    data = mixture.simulate(60, seed=1).data
    noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)).double()
    data = torch.cat([data, noise], 1)[:, :columns]
    (figure,) = mixture.pictures(cavi(Problem(mixture.model, data), max_sweeps=3)).values()
    (axes,) = figure.axes
    drawn = len(axes.lines) - 1 if columns == 1 else len(axes.patches)
    assert drawn == 2
    assert axes.get_xlabel() == {1: "data", 2: "data[0]", 3: "first principal axis"}[columns]


@pytest.mark.parametrize(
    ("data", "options", "error", "said"),
    [
        (torch.ones(9, 2), {}, DataError, "data, column 0 .*: all values are equal"),
        (torch.arange(6.0).reshape(2, 3), {}, DataError, "span fewer than 3 dimensions"),
        (torch.arange(6.0)[:, None] * torch.tensor([1.0, 2.0]), {}, DataError, "span fewer than 2"),
        (
            torch.arange(6.0),
            {"components": 1},
            OptionError,
            "components: expected a whole number from 2",
        ),
    ],
)
def test_what_has_no_clusters_is_refused(data, options, error, said):
    with pytest.raises(error, match=said):
        Problem(mixture.model, data, **options)


def test_fits_are_judged_by_what_no_change_of_labels_moves():
    data = mixture.simulate(100, seed=0).data
    problem = Problem(mixture.model, data, components=3)
    draws = cavi(problem, max_sweeps=20).sample(7)
    names = ("weights", "precision", "location")
    changed = {name: draws[name][:, [2, 0, 1]] for name in names}
    torch.testing.assert_close(problem.log_joint(changed), problem.log_joint(draws))
    judged, again = problem.invariants(draws), problem.invariants(changed)
    for name in names:
        assert torch.equal(judged[f"{name}_in_order"], again[f"{name}_in_order"])
        assert judged[f"{name}_in_order"].shape == draws[name].shape
    assert (judged["location_in_order"][..., 0].diff(dim=1) >= 0).all()
    whole = {name: value.flatten(1).sum(1) for name, value in draws.items()}
    for name in names:
        torch.testing.assert_close(judged[f"{name}_in_order"].flatten(1).sum(1), whole[name])


def test_facts_of_parts_are_those_of_all_rows():
    data = mixture.simulate(301, seed=3).data + 1e4
    parts = [Facts.of(part, group=part[:, 0].round()) for part in data.split([1, 100, 200])]
    facts = Facts.joined(parts)
    torch.testing.assert_close(facts.mean, data.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(facts.covariance, torch.cov(data.mT), rtol=1e-9, atol=0)
    assert torch.equal(facts.values["group"], data[:, 0].round().unique())
    some = Problem(mixture.model, data[:50], facts=facts)
    whole = Problem(mixture.model, data)
    draws = {name: value for name, value in whole.prior(3).items() if name != "component"}
    for name in ("weights", "location", "precision"):
        one, two = (problem.log_prior(draws)[name] for problem in (some, whole))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=0)
