"""Log-probabilities of expanded categoricals are taken once, and are the same."""

import pyro.distributions as dist
import pytest
import torch

from vitools.problem.reading.shared_logits import share_logits

PROBS = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.25, 0.75]])


@pytest.mark.parametrize("shape", [(4, 2), (4, 7, 2)])
def test_they_equal_those_of_the_expanded_probabilities(shape):
    fn = dist.Categorical(PROBS).expand(shape)
    expected = dist.Categorical(PROBS.expand(*shape, 3).clone()).logits
    share_logits(fn)
    assert torch.equal(fn.logits, expected)
    assert fn.logits.untyped_storage().nbytes() == PROBS.nbytes


def test_wrappers_are_looked_through():
    fn = dist.OneHotCategorical(PROBS).expand((4, 2)).to_event(1).mask(torch.tensor(True))
    share_logits(fn)
    shared = fn.base_dist.base_dist._categorical
    assert vars(shared)["logits"].untyped_storage().nbytes() == PROBS.nbytes


@pytest.mark.parametrize(
    "fn",
    [
        dist.Categorical(PROBS),
        dist.Categorical(logits=PROBS).expand((4, 2)),
        dist.Normal(0.0, 1.0).expand((4,)),
    ],
)
def test_others_are_left_alone(fn):
    before = dict(vars(fn))
    share_logits(fn)
    assert vars(fn).keys() == before.keys()


def test_gradients_reach_the_shared_probabilities():
    probs = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64, requires_grad=True)
    fn = dist.Categorical(probs).expand((4,))
    share_logits(fn)
    fn.log_prob(torch.tensor([0, 0, 1, 2])).sum().backward()
    # log p_k - log Σ p: counts over p minus their sum
    torch.testing.assert_close(
        probs.grad, torch.tensor([2.0, 1.0, 1.0]).double() / probs.detach() - 4
    )
