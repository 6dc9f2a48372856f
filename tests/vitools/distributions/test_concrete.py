"""Concrete: the published density, finite at low temperature."""

import pytest
import torch
from torch.distributions import RelaxedOneHotCategorical

from vitools.distributions import Concrete


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def test_density_is_that_of_torch() -> None:
    logits = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.0, 0.0]]).double()
    temperature = torch.tensor(0.7).double()
    theirs = RelaxedOneHotCategorical(temperature, logits=logits)
    value = torch.distributions.Dirichlet(torch.ones(3).double()).sample((20, 2))
    torch.testing.assert_close(
        Concrete(temperature, logits).log_prob(value), theirs.log_prob(value)
    )


def test_low_temperatures_stay_finite_and_choose_by_the_logits() -> None:
    """P(θ_k largest) = softmax(ℓ)_k at every temperature."""
    logits = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float32, requires_grad=True)
    torch.manual_seed(0)
    for temperature in (1e-3, 0.1, 1.0, 100.0):
        q = Concrete(torch.tensor(temperature, dtype=torch.float32), logits)
        value = q.rsample((20_000,))
        score = q.log_prob(value)
        assert score.isfinite().all()
        (gradient,) = torch.autograd.grad(score.sum() + value.sum(), logits)
        assert gradient.isfinite().all()
        share = torch.nn.functional.one_hot(value.argmax(-1), 3).double().mean(0)
        truth = torch.softmax(logits.detach().double(), -1)
        assert ((share - truth).abs() < 4.5 * (truth * (1 - truth) / 20_000).sqrt()).all()
