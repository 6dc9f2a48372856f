"""Factors, topics and traits: the densities that are stated, scikit-learn's own, the truth, refusals."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.decomposition import PCA, FactorAnalysis

from vitools import Problem, cavi
from vitools.errors import DataError, OptionError
from vitools.models.factors import lda, pca, poisson_factorisation


def sines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sines of the principal angles between the columns' spans."""
    a, b = np.linalg.qr(one)[0], np.linalg.qr(other)[0]
    return np.sqrt(1 - np.clip(np.linalg.svd(a.T @ b, compute_uv=False), 0, 1) ** 2)


@pytest.mark.parametrize("own_noise", [False, True])
def test_the_density_of_factors_is_the_one_stated(own_noise):
    data = pca.simulate(4, 3, seed=1).data
    g = torch.Generator().manual_seed(0)
    noise = torch.tensor([2.0, 3.0, 4.0] if own_noise else 2.0).double()
    values = {
        "relevance": torch.tensor([0.5, 2.0]).double(),
        "mean": torch.randn(3, generator=g).double(),
        "loadings": torch.randn(3, 2, generator=g).double(),
        "scores": torch.randn(4, 1, 2, generator=g).double(),
        "noise_precision": noise,
    }
    s = data.std(0)
    location = values["mean"] + values["scores"][:, 0] @ values["loadings"].mT
    expected = (
        scipy.stats.gamma(1, scale=1 / s.square().mean()).logpdf(values["relevance"]).sum()
        + scipy.stats.norm(data.mean(0), 10 * s).logpdf(values["mean"]).sum()
        + scipy.stats.norm(0, values["relevance"].rsqrt()).logpdf(values["loadings"]).sum()
        + scipy.stats.norm.logpdf(values["scores"]).sum()
        + scipy.stats.gamma(0.5, scale=200 / (s**2 if own_noise else s.square().mean()))
        .logpdf(noise)
        .sum()
        + scipy.stats.norm(location, noise.rsqrt()).logpdf(data).sum()
    )
    problem = Problem(pca.factor_analysis if own_noise else pca.model, data)
    assert problem.log_joint(values).item() == pytest.approx(expected, rel=1e-10)


def test_the_plane_of_the_components_is_that_of_scikit_learn():
    tables = pca.simulate(seed=0)
    fit = cavi(Problem(pca.model, tables.data), max_sweeps=150)
    found = fit.mean()["loadings"].reshape(8, 2).numpy()
    theirs = PCA(2).fit(tables.data.numpy())
    assert sines(found, theirs.components_.T).max() < 0.02
    assert fit.mean()["noise_precision"].rsqrt().item() == pytest.approx(0.5, rel=0.1)
    explained = pca.variances(fit).sort(descending=True).values
    assert bool((explained[0] > 2 * explained[1]).all())


def test_the_noise_of_each_column_is_that_of_scikit_learn():
    tables = pca.simulate(400, seed=2, own_noise=True)
    fit = cavi(Problem(pca.factor_analysis, tables.data), max_sweeps=150)
    theirs = FactorAnalysis(2, tol=1e-6, max_iter=5000).fit(tables.data.numpy())
    found = fit.mean()["noise_precision"].reciprocal().numpy()
    np.testing.assert_allclose(found, theirs.noise_variance_, rtol=0.1)
    assert sines(fit.mean()["loadings"].reshape(8, 2).numpy(), theirs.components_.T).max() < 0.05


def test_the_density_of_counts_is_that_of_all_pairs_zeros_included():
    table = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]).double()
    user, item = table.nonzero(as_tuple=True)
    problem = Problem(poisson_factorisation.model, table[user, item], 7 + user, item, factors=2)
    g = torch.Generator().manual_seed(0)
    values = {
        "taste": torch.rand(2, 2, generator=g).double() + 0.1,
        "trait": torch.rand(3, 2, generator=g).double() + 0.1,
    }
    rate = (values["taste"] @ values["trait"].mT).numpy()
    expected = (
        scipy.stats.poisson(rate).logpmf(table.numpy()).sum()
        + scipy.stats.gamma(0.3, scale=1 / (0.3 * 2)).logpdf(values["taste"]).sum()
        + scipy.stats.gamma(0.3, scale=1 / 0.3).logpdf(values["trait"]).sum()
    )  # the mean count is 1, so that b = K
    assert problem.log_joint(values).item() == pytest.approx(expected, rel=1e-10)


def test_rates_of_simulated_counts_are_found():
    counts = poisson_factorisation.simulate(seed=0)
    problem = Problem(poisson_factorisation.model, counts.count, counts.user, counts.item)
    fit = cavi(problem, restarts=3, max_sweeps=100)
    mean = fit.mean()
    rate = mean["taste"] @ mean["trait"].mT
    truth = counts.rate
    assert ((rate - truth) ** 2).mean() < 0.15 * truth.var()
    size = (mean["taste"].sum(0) * mean["trait"].sum(0)).sort().values
    assert size[0] < 0.05 * size[1]  # four of the five that are offered


def test_the_density_of_words_is_that_of_their_topics_summed_out():
    word, document = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 0, 1, 1])
    count = torch.tensor([2.0, 1.0, 3.0, 1.0]).double()
    values = {
        "share": torch.tensor([[0.3, 0.7], [0.8, 0.2]]).double(),
        "topic": torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]).double(),
    }
    rows = (values["share"] @ values["topic"])[document, word]
    expected = (
        (count * rows.log()).sum().item()
        + sum(scipy.stats.dirichlet([0.5] * 2).logpdf(share) for share in values["share"])
        + sum(scipy.stats.dirichlet([0.5] * 3).logpdf(topic) for topic in values["topic"])
    )
    problem = Problem(lda.model, word, document, count, topics=2)
    assert problem.log_joint(values).item() == pytest.approx(expected, rel=1e-10)


def test_topics_of_simulated_documents_are_found_and_a_count_is_that_many_rows():
    documents = lda.simulate(seed=0)
    problem = Problem(lda.model, documents.word, documents.document, documents.count)
    fit = cavi(problem, restarts=5, seed=1)
    assert fit.status.is_good
    topic, truth = fit.mean()["topic"], documents.topic
    distance = 0.5 * (topic[:, None] - truth).abs().sum(-1)  # total variation
    assert sorted(distance.argmin(1).tolist()) == [0, 1, 2, 3]
    assert distance.min(1).values.max() < 0.12
    rows = documents.count.long()
    repeated = Problem(
        lda.model,
        documents.word.repeat_interleave(rows),
        documents.document.repeat_interleave(rows),
    )
    draws = fit.sample(3, seed=0)
    torch.testing.assert_close(problem.log_joint(draws), repeated.log_joint(draws))


def test_pictures_name_columns_words_and_items():
    data = pca.simulate(20, 4, seed=1).data
    problem = Problem(pca.model, data).with_coords(variables=list("abcd"))
    (figure,) = pca.pictures(cavi(problem, max_sweeps=3)).values()
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == list("abcd")
    example = lda.example(0)
    problem = Problem(example.model, *example.args).with_coords(**example.coords)
    (figure,) = lda.pictures(cavi(problem, max_sweeps=3)).values()
    assert len(figure.axes) == 4
    assert {text.get_text() for text in figure.axes[0].get_yticklabels()} <= set(lda.NAMES)
    example = poisson_factorisation.example(0)
    (figure,) = example.pictures(
        cavi(Problem(example.model, *example.args), max_sweeps=3)
    ).values()  # fmt: skip
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"trait {k}" for k in range(5)]


PAIRS = {
    "count": torch.tensor([1.0, 2.0]),
    "user": torch.tensor([0, 1]),
    "item": torch.tensor([0, 1]),
}


@pytest.mark.parametrize(
    ("model", "given", "error", "said"),
    [
        (pca.model, {"data": torch.rand(5, 2)}, DataError, "below the 2 columns of data, got 2"),
        (pca.model, {"data": torch.rand(5, 4), "factors": 4}, OptionError, "got 4. Give more"),
        (
            poisson_factorisation.model,
            PAIRS | {"count": torch.tensor([1.0, -2.0])},
            DataError,
            "count: -2 in row 1; expected whole",
        ),
        (
            poisson_factorisation.model,
            {
                "count": torch.ones(3),
                "user": torch.tensor([0, 1, 1]),
                "item": torch.tensor([0, 1, 1]),
            },
            DataError,
            "a pair is there twice. Add its counts up",
        ),
        (
            lda.model,
            {"word": torch.tensor([0, 1]), "document": torch.tensor([0, 0, 1])},
            DataError,
            r"document: expected shape \[2\]",
        ),
        (
            lda.model,
            {"word": torch.tensor([0, 1]), "document": torch.tensor([0, 0]), "topics": 0},
            OptionError,
            "topics: expected a positive whole number",
        ),
    ],
)
def test_what_has_no_factors_is_refused(model, given, error, said):
    with pytest.raises(error, match=said):
        Problem(model, **given)
