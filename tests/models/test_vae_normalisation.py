"""Batch normalisation that ends: what it is in training, what it leaves behind, what it refuses."""

import pyro
import pytest
import torch

from vitools import Problem, svi
from vitools.errors import OptionError
from vitools.isolation import seeded
from vitools.models.topic_vae import TopicVAE
from vitools.models.vae import elbo_terms
from vitools.models.vae.networks.layers import multilayer_perceptron
from vitools.models.vae.networks.normalisation import EPSILON, Normalisation, normalised, settle


@pytest.fixture(autouse=True)
def _own_param_store():
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def documents():
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([[4.0, 4, 4, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 4, 4, 4]]).double()
    return torch.poisson(rates.repeat(30, 1), generator=generator)


def normalised_topics(seed=1):
    return TopicVAE(6, 3, (5,), normalise=True, seed=seed).double()


def test_in_training_it_is_torchs_batch_normalisation():
    layer = Normalisation(4).double()
    with torch.no_grad():
        layer.shift.copy_(torch.linspace(-1, 1, 4))
    torchs = torch.nn.BatchNorm1d(4, eps=EPSILON).double()
    with torch.no_grad():
        torchs.bias.copy_(layer.shift)
    generator = torch.Generator().manual_seed(0)
    inputs = 3 + 2 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(layer(inputs), torchs(inputs))
    torch.testing.assert_close(layer(inputs.reshape(7, 1, 4)).squeeze(1), torchs(inputs))
    assert torch.equal(layer.mean, torch.zeros(4).double())  # no trace of a call is kept


def test_an_encoders_means_and_log_variances_have_spread_one():
    network = normalised(multilayer_perceptron)(5, 6, (4,), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    outputs = network.double()(10 * torch.randn(500, 5, generator=generator, dtype=torch.float64))
    mean, log_sd = outputs.chunk(2, -1)
    for values in (mean, 2 * log_sd):
        torch.testing.assert_close(values.mean(0), torch.zeros(3).double())
        spread = values.std(0, correction=0)
        torch.testing.assert_close(spread, torch.ones(3).double(), rtol=0, atol=0.02)


def test_settled_it_maps_each_row_by_the_statistics_of_all():
    layer = Normalisation(3, shift=False).double()
    generator = torch.Generator().manual_seed(1)
    rows = 5 + 2 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    in_training = layer(rows)
    settle(layer, lambda: layer(rows))
    assert not layer.training
    torch.testing.assert_close(layer(rows), in_training)
    torch.testing.assert_close(layer(rows[:2]), in_training[:2])  # alone as in company
    layer.train()
    assert (layer(rows[:2]) - in_training[:2]).abs().max() > 0.1


def test_a_settled_models_densities_are_a_documents_own(documents):
    topics = normalised_topics()
    topics.settle(documents)
    whole = elbo_terms(topics, documents[:8], num_samples=4000)
    few = elbo_terms(topics, documents[:2], num_samples=4000, seed=1)
    error = (whole.standard_error[:2].square() + few.standard_error.square()).sqrt()
    assert ((whole.elbo[:2] - few.elbo).abs() < 4.5 * error).all()
    with seeded(0):
        theta = topics.encoder(documents.log1p()).sample()
    lengths = documents.sum(-1)
    at_all = topics.decoder(theta, lengths).log_probabilities
    torch.testing.assert_close(topics.decoder(theta[:2], lengths[:2]).log_probabilities, at_all[:2])
    torch.testing.assert_close(at_all.exp().sum(-1), torch.ones(60).double())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_engine_trains_it_as_a_graph_and_what_it_learns_survives_settling(documents, dropout):
    """Warnings are errors here: one would say that it cannot be recorded."""
    topics = TopicVAE(6, 3, (5,), normalise=True, dropout=dropout, seed=1).double()
    untrained = normalised_topics()
    untrained.settle(documents)
    problem = Problem(topics.model, documents, batch_size=20)
    svi(
        problem,
        topics.guide,
        max_steps=300,
        compile=False,
        optimizer=lambda weights: torch.optim.Adam(weights, lr=0.02, betas=(0.9, 0.999)),
    )
    topics.settle(documents)
    before, after = (elbo_terms(model, documents) for model in (untrained, topics))
    error = torch.hypot(before.standard_error, after.standard_error).square().sum().sqrt()
    assert (after.elbo - before.elbo).sum() > 4 * error
    found = topics.topics_as_led(documents)
    halves = {tuple(sorted(row)) for row in found.topk(3).indices.tolist()}
    assert {(0, 1, 2), (3, 4, 5)} <= halves


def test_what_would_depend_on_company_is_refused(documents):
    topics = normalised_topics()
    for ask in (
        lambda: topics.encode(documents),
        lambda: topics.topics(),
        lambda: topics.simulate(torch.tensor([3.0]).double(), seed=0),
        lambda: elbo_terms(topics, documents),
    ):
        with pytest.raises(OptionError, match=r"statistics first: model.settle\(documents\)"):
            ask()
    topics.settle(documents)
    topics.encode(documents)
    topics.train()
    with pytest.raises(OptionError, match="would depend on the rows that come together"):
        topics.encode(documents)
    with pytest.raises(OptionError, match="goes with latents='logistic_normal', not 'dirichlet'"):
        TopicVAE(6, 3, normalise=True, latents="dirichlet")
    with pytest.raises(OptionError, match="have no logits to normalise"):
        TopicVAE(6, 3, combination="mixture", normalise=True)


def test_dropout_thins_weights_in_training_only_and_keeps_their_mean(documents):
    topics = TopicVAE(6, 3, (5,), normalise=True, dropout=0.25).double()
    seen, weights = [], torch.full((4000, 3), 1 / 3).double()
    hook = topics.decoder.normalisation.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    lengths = torch.ones(4000).double()
    with seeded(0):
        topics.decoder(weights, lengths)
    topics.settle(documents)
    topics.decoder(weights, lengths)
    hook.remove()
    exact = weights @ topics.decoder.weight.mT
    torch.testing.assert_close(seen[-1], exact)
    # a weight is 0 or 4/3 of itself: variance 1/3 of its square
    error = (topics.decoder.weight.square().sum(-1) / 27 / 4000).sqrt()
    assert ((seen[0].mean(0) - exact[0]).abs() < 4.5 * error).all()
    assert (seen[0].std(0) > 10 * error).all()
    with pytest.raises(OptionError, match="goes with normalise=True"):
        TopicVAE(6, 3, dropout=0.2)
    with pytest.raises(OptionError, match="from 0 to below 1, got 1"):
        TopicVAE(6, 3, normalise=True, dropout=1.0)


def test_settling_a_model_without_normalisation_changes_nothing(documents):
    topics = TopicVAE(6, 3, (5,)).double()
    before = topics.encode(documents)
    topics.settle(documents)
    assert torch.equal(topics.encode(documents), before)
