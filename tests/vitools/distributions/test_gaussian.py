"""Gaussians that score their own draws by the noise in them, against torch's in float64."""

import copy
import math
import pickle

import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vitools.distributions import LogisticNormal
from vitools.distributions.gaussian import MultivariateNormal, Normal

TINY = (-20.0, -45.0, -80.0, -200.0)  # log σ; the last is below the smallest number of float32


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def leaf(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def gradients(value: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)


def tril(loc: Tensor, entries: Tensor) -> Tensor:
    size = len(loc)
    return entries[:size].exp().diag() + entries.reshape(size, size).tril(-1)


PAIRS = {
    "normal": (Normal, dist.Normal, lambda m, s: s.exp()[:3]),
    "multivariate_normal": (
        lambda m, s: MultivariateNormal(m, scale_tril=s),
        lambda m, s: dist.MultivariateNormal(m, scale_tril=s),
        tril,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_own_draws_have_the_score_and_pathwise_gradient_of_torch(name: str) -> None:
    ours, theirs, scale = PAIRS[name]
    loc, entries = leaf(0.3, -1.0, 2.0), leaf(0.1, -0.4, 0.2, 0.5, 0.3, -0.2, 0.7, -0.6, 0.4)
    q = ours(loc, scale(loc, entries))
    torch.manual_seed(0)
    value = q.rsample((200,))
    exact = theirs(loc, scale(loc, entries)).log_prob(value)
    found = q.log_prob(value)
    torch.testing.assert_close(found, exact)
    for weight in (torch.ones_like(found), torch.linspace(-1, 2, found.numel()).view_as(found)):
        pairs = [gradients((x * weight).sum(), loc, entries) for x in (found, exact)]
        for mine, truth in zip(*pairs, strict=True):
            torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_other_values_and_constant_draws_have_torch_s_own_score(name: str) -> None:
    ours, theirs, scale = PAIRS[name]
    loc, entries = leaf(0.3, -1.0, 2.0), leaf(0.1, -0.4, 0.2, 0.5, 0.3, -0.2, 0.7, -0.6, 0.4)
    q, exact = (make(loc, scale(loc, entries)) for make in (ours, theirs))
    torch.manual_seed(1)
    drawn = q.rsample((20,))
    for value in (q.sample((20,)), drawn.detach(), drawn.detach().clone()):
        found, truth = (gradients(x.log_prob(value).sum(), loc, entries) for x in (q, exact))
        assert all(map(torch.equal, found, truth))


@pytest.mark.parametrize("log_scale", TINY)
def test_sure_normals_keep_their_noise_in_float32(log_scale: float) -> None:
    """log q = -½ ε² - log σ - ½ log 2π, ε² a χ² draw; derivative -1 in log σ and 0 in m."""
    count = 20_000
    loc, width = (leaf(x, dtype=torch.float32) for x in (3.0, log_scale))
    q = Normal.from_log_scale(loc, width).expand((count,))
    torch.manual_seed(2)
    score = q.log_prob(q.rsample())
    assert score.dtype == torch.float32
    squares = -2 * (score.detach().double() + log_scale + 0.5 * math.log(2 * math.pi))
    # Kolmogorov-Smirnov: above 1.95/√n one time in a thousand; score itself is rounded to 10⁻⁵
    assert scipy.stats.kstest(squares.numpy(), "chi2", (1,)).statistic < 1.95 / count**0.5
    by_loc, by_width = gradients(score.mean(), loc, width)
    assert by_loc.item() == 0.0
    assert by_width.item() == pytest.approx(-1.0, rel=1e-5)


@pytest.mark.parametrize("log_scale", TINY)
@pytest.mark.parametrize("reference", [False, True])
def test_sure_logistic_normals_keep_their_noise_in_float32(
    log_scale: float, reference: bool
) -> None:
    """As in float64 where that still resolves σ; the derivative in log σ is minus the freedoms."""
    loc = torch.tensor([0.3, -1.0, 0.5, 0.0]).float()
    spread = torch.tensor([0.0, 0.7, -0.5, 0.2]).float()
    width = leaf(log_scale, dtype=torch.float32)
    q = LogisticNormal(loc, log_scale=width + spread, reference=reference)
    torch.manual_seed(3)
    value = q.rsample((5000,))
    score = q.log_prob(value)
    assert score.dtype == torch.float32
    freedoms = 4 if reference else 3
    (gradient,) = torch.autograd.grad(score.mean() + value.log().sum(-1).mean(), width)
    assert gradient.item() == pytest.approx(-freedoms, rel=1e-5)
    # the law of the log-ratios on its scale: its quadratic form is χ² of so many freedoms
    unit = LogisticNormal(loc.double(), log_scale=spread.double(), reference=reference)
    peak = unit.log_ratios.log_prob(unit.log_ratios.mean)
    density = score.detach().double() + value.detach().double().log().sum(-1)
    squares = 2 * (peak - freedoms * log_scale - density)
    distance = scipy.stats.kstest(squares.numpy(), "chi2", (freedoms,)).statistic
    assert distance < 1.95 / len(value) ** 0.5


@pytest.mark.parametrize("log_ratio", [0.7, -5.0, -45.0, -95.0])
def test_kl_to_a_wider_normal_survives_float32(log_ratio: float) -> None:
    parameters = [leaf(x, dtype=torch.float32) for x in (0.4, log_ratio)]
    wide = dist.Normal(torch.tensor(0.1).float(), torch.tensor(1.5).float())
    found = kl_divergence(Normal.from_log_scale(*parameters), wide)
    exact = [x.detach().double().requires_grad_() for x in parameters]
    p = dist.Normal(exact[0], exact[1].exp())
    truth = kl_divergence(p, dist.Normal(0.1, 1.5))
    torch.testing.assert_close(found, truth.float())
    for mine, other in zip(
        gradients(found.sum(), *parameters), gradients(truth.sum(), *exact), strict=True
    ):
        torch.testing.assert_close(mine, other.float(), rtol=1e-5, atol=1e-6)


def test_kl_is_that_of_torch_in_float64() -> None:
    p, q = Normal(torch.tensor(0.3).double(), torch.tensor(0.8).double()), dist.Normal(1.0, 2.0)
    truth = kl_divergence(dist.Normal(p.loc, p.scale), q)
    torch.testing.assert_close(kl_divergence(p, q), truth)
    torch.testing.assert_close(kl_divergence(p.to_event(0), q), truth)


def test_normals_that_have_drawn_can_be_copied_saved_and_repeated() -> None:
    q = Normal.from_log_scale(torch.zeros(3), torch.tensor(-0.5))
    value = q.rsample((2,))
    for other in (pickle.loads(pickle.dumps(q)), copy.deepcopy(q), q.expand((2, 3))):
        torch.testing.assert_close(other.log_prob(value), q.log_prob(value))
        assert torch.equal(other.log_scale, q.log_scale.expand(other.batch_shape))


def test_draws_and_their_scores_follow_vmap() -> None:
    def lane(loc: Tensor) -> tuple[Tensor, Tensor]:
        q = Normal(loc, torch.ones(()), validate_args=False)
        value = q.rsample()
        return value, q.log_prob(value)

    locs = torch.arange(5.0)
    values, scores = torch.vmap(lane, randomness="different")(locs)
    assert len((values - locs).unique()) == 5
    torch.testing.assert_close(scores, dist.Normal(locs, 1.0).log_prob(values))
