"""The topic VAE: densities by enumeration and scipy, its prior's match, coherence by hand."""

import math
from itertools import product

import pyro
import pytest
import scipy.stats
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from vitools import Problem, svi
from vitools.distributions import LogisticNormal
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.topic_judgement import coherence, led_by, perplexity
from vitools.models.topic_vae import SIMPLEX, TopicVAE, example
from vitools.models.topic_words import Words
from vitools.models.vae import elbo_terms, importance_weighted_log_likelihood


@pytest.fixture(autouse=True)
def _own_param_store():
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def documents():
    generator = torch.Generator().manual_seed(0)
    return torch.poisson(torch.full((30, 8), 1.5).double(), generator=generator)


def test_words_have_probabilities_that_sum_to_one_over_sequences():
    probability = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    words = Words(probability.log(), torch.tensor(4))
    total = 0.0
    for sequence in product(range(3), repeat=4):
        counts = torch.bincount(torch.tensor(sequence), minlength=3).double()
        total += words.log_prob(counts).exp().item()
        by_hand = math.prod(probability[i].item() for i in sequence)
        assert words.log_prob(counts).exp().item() == pytest.approx(by_hand, rel=1e-12)
    assert total == pytest.approx(1, rel=1e-12)
    counts = torch.tensor([1.0, 2.0, 1.0])
    multinomial = scipy.stats.multinomial(4, probability.numpy()).logpmf(counts.numpy())
    assert words.log_prob(counts).item() + math.log(12) == pytest.approx(multinomial, rel=1e-12)


def test_drawn_words_have_their_lengths_and_shares():
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    lengths = torch.tensor([3, 5])
    with seeded(0):
        drawn = Words(probability.log(), lengths).sample(torch.Size([4000]))
    assert drawn.shape == (4000, 2, 3)
    assert torch.equal(drawn.sum(-1), lengths.double().expand(4000, 2))
    share = drawn.mean(0) / lengths[:, None]
    error = (probability * (1 - probability) / (4000 * lengths[:, None])).sqrt()
    assert ((share - probability).abs() < 4.5 * error).all()


@pytest.mark.parametrize("combination", ["product", "mixture"])
def test_log_joint_is_the_formula(combination, documents):
    model = TopicVAE(8, 3, (4,), combination=combination, latents="dirichlet", concentration=0.7)
    model = model.double()
    with seeded(0):
        theta = torch.distributions.Dirichlet(torch.ones(3).double()).sample((30,))
    conditioned = poutine.condition(model.model, {"theta": theta})
    trace = poutine.trace(conditioned).get_trace(documents)
    beta = model.decoder.weight
    if combination == "product":
        with torch.no_grad():
            model.decoder.bias.copy_(torch.linspace(-1, 1, 8))
        trace = poutine.trace(conditioned).get_trace(documents)
        experts = torch.stack([row @ beta.T + model.decoder.bias for row in theta]).exp()
        word = experts / experts.sum(1, keepdim=True)
    else:
        topics = beta.exp() / beta.exp().sum(0)
        word = sum(theta[:, k, None] * topics[None, :, k] for k in range(3))
    prior = sum(scipy.stats.dirichlet([0.7] * 3).logpdf(row) for row in theta.numpy())
    expected = (documents * word.log()).sum().item() + prior
    assert trace.log_prob_sum().item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("concentration", [0.02, 1.0, 5.0])
def test_the_prior_is_laplaces_match_of_the_dirichlet(concentration):
    model = TopicVAE(8, 4, concentration=concentration).double()
    ours = model.prior(torch.zeros(1).double())
    alpha = torch.full((4,), concentration, dtype=torch.float64)
    theirs = LogisticNormal.from_dirichlet(alpha, "laplace")
    assert abs(kl_divergence(ours, theirs).item()) < 1e-9
    # Laplace: at the mode of the softmax basis the log densities have the same curvature.
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def dirichlet(x):
        return (alpha * torch.log_softmax(x, -1)).sum()

    curvature = torch.autograd.functional.hessian(dirichlet, logits)
    ratio_map = torch.cat([torch.eye(3), -torch.ones(3, 1)], 1).double()
    covariance = ratio_map @ torch.linalg.pinv(-curvature) @ ratio_map.T
    expected = ours.log_ratios.covariance_matrix
    torch.testing.assert_close(covariance, expected, rtol=1e-8, atol=1e-8)


def test_bound_tends_to_the_likelihood_by_quadrature(documents):
    """Two topics: log p(w) is an integral over one number."""
    model = TopicVAE(8, 2, (4,), combination="mixture", latents="dirichlet").double()
    few = documents[:5]
    nodes = (torch.arange(20_000).double() + 0.5) / 20_000  # θ₁ ~ Uniform(0, 1) for α = 1
    topics = model.topics()
    word = nodes[:, None] * topics[0] + (1 - nodes[:, None]) * topics[1]
    exact = (few @ word.log().T).logsumexp(-1) - math.log(20_000)
    bound = importance_weighted_log_likelihood(model, few, num_samples=4000)
    assert ((bound.value - exact).abs() < 4.5 * bound.standard_error + 1e-3).all()
    elbo = elbo_terms(model, few)
    assert (elbo.elbo < exact + 4 * elbo.standard_error).all()


@pytest.mark.parametrize("latents", SIMPLEX)
def test_svi_trains_it_with_every_family(latents, documents):
    model = TopicVAE(8, 3, (4,), latents=latents).double()
    problem = Problem(model.model, documents, batch_size=10)
    assert problem.latents["theta"].plates == ("documents",)
    before = elbo_terms(model, documents)
    svi(problem, model.guide, max_steps=60, learning_rate=0.03, compile=False)
    after = elbo_terms(model, documents)
    error = math.hypot(*(e.standard_error.square().sum().sqrt() for e in (before, after)))
    assert (after.elbo - before.elbo).sum() > 4 * error
    weights = model.encode(documents)
    torch.testing.assert_close(weights.sum(-1), torch.ones(30).double())


def test_topics_are_the_words_of_each_alone():
    model = TopicVAE(8, 3, combination="mixture").double()
    beta = model.decoder.weight.detach()
    torch.testing.assert_close(model.topics(), (beta.exp() / beta.exp().sum(0)).T)
    counts, weights = model.simulate(torch.tensor([7.0, 2.0]), seed=0)
    assert counts.shape == (2, 8)
    assert weights.shape == (2, 3)
    assert counts.sum(-1).tolist() == [7.0, 2.0]


def test_planted_topics_are_found():
    made = example(0)
    model = made.guide.__self__
    problem = Problem(made.model, *made.args, **made.kwargs)
    svi(problem, made.guide, max_steps=1500, learning_rate=made.learning_rate, compile=False)
    found = model.topics().topk(15).indices.sort(-1).values
    planted = torch.arange(60).reshape(4, 15)
    assert torch.equal(found[found[:, 0].argsort()], planted)


def test_perplexity_of_a_uniform_model_is_the_vocabulary(documents):
    log_probability = documents.sum(-1) * math.log(1 / 8)
    assert perplexity(log_probability, documents) == pytest.approx(8, rel=1e-9)


def test_coherence_is_the_mean_over_pairs():
    documents = torch.tensor(
        [[2.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 3.0, 1.0, 0.0]]
    )
    share, pairs = [3 / 4, 3 / 4, 3 / 4], {(0, 1): 2 / 4, (0, 2): 2 / 4, (1, 2): 2 / 4}
    scores = [math.log(p / (share[i] * share[j])) / -math.log(p) for (i, j), p in pairs.items()]
    topics = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    assert coherence(topics, documents, 3).item() == pytest.approx(sum(scores) / 3, rel=1e-9)
    # Words 3 and 2 are never together.
    assert coherence(torch.tensor([[0.1, 0.1, 0.4, 0.4]]), documents, 2).item() == -1


def test_bad_input_is_refused(documents):
    with pytest.raises(OptionError, match="2 topics"):
        TopicVAE(8, 1)
    with pytest.raises(OptionError, match=r"latents: expected one of .* got 'normal'"):
        TopicVAE(8, 2, latents="normal")
    with pytest.raises(OptionError, match="combination: expected one of"):
        TopicVAE(8, 2, combination="sum")
    with pytest.raises(OptionError, match="concentration: expected a number above 0"):
        TopicVAE(8, 2, concentration=0)
    with pytest.raises(DataError, match=r"documents: WordDecoder needs word counts.* got \d\.5"):
        TopicVAE(8, 2).double().encode(documents + 0.5)
    with pytest.raises(DataError, match="one vocabulary"):
        coherence(torch.ones(2, 7), documents)


def test_a_topics_words_are_those_of_the_documents_it_leads():
    weights = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.5, 0.4]]).double()
    words = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]]).double()
    led = led_by(weights, words)
    torch.testing.assert_close(led[:2], torch.tensor([[0.6, 0.4], [0.1, 0.9]]).double())
    spread = (weights[:, 2, None] * words).sum(0) / 0.6  # the third leads none
    torch.testing.assert_close(led[2], spread)
    model = TopicVAE(8, 3, combination="mixture").double()
    documents = torch.ones(4, 8).double()
    found = model.topics_as_led(documents)
    torch.testing.assert_close(found.sum(-1), torch.ones(3).double())
