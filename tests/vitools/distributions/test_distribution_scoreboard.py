"""Every distribution against quadrature and its own numerical derivatives: one list, the same tests.

Adding a distribution is adding a row to CASES.
"""

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vitools.distributions import (
    Beta,
    Concrete,
    Dirichlet,
    Kumaraswamy,
    LogisticNormal,
    MVKumaraswamy,
    StickBreaking,
)


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def t(*values: float) -> Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[..., dist.TorchDistribution]
    parameters: tuple[Tensor, ...]
    simplex: bool = False

    def build(self) -> dist.TorchDistribution:
        return self.make(*self.parameters)


def low_rank(loc: Tensor, factor: Tensor, log_diag: Tensor) -> LogisticNormal:
    return LogisticNormal(loc, cov_factor=factor.reshape(-1, 1), cov_diag=log_diag.exp())


def full(loc: Tensor, tril: Tensor, reference: bool = False) -> LogisticNormal:
    size = loc.shape[-1]
    tril = tril.reshape(size, size).tril(-1) + torch.diag_embed(tril[:size].exp())
    return LogisticNormal(loc, scale_tril=tril, reference=reference)


CASES = [
    Case("kumaraswamy", Kumaraswamy, (t(0.3), t(0.9))),
    Case("kumaraswamy_u_shaped", Kumaraswamy, (t(-0.4), t(-0.3))),
    Case("kumaraswamy_narrow", Kumaraswamy, (t(2.5), t(4.0))),
    Case("beta", Beta, (t(1.7), t(0.8))),
    Case("stick_kumaraswamy", StickBreaking.kumaraswamy, (t(0.2, 0.5), t(0.4, -0.1)), True),
    Case("stick_beta", lambda a, b: StickBreaking(Beta(a, b)), (t(0.9, 1.5), t(2.0, 0.8)), True),
    Case(
        "stick_pyro_beta",
        lambda a, b: StickBreaking(dist.Beta(a, b)),
        (t(1.1, 1.5), t(2.0, 1.2)),
        True,
    ),
    Case("dirichlet", Dirichlet, (t(0.8, 1.5, 2.0),), True),
    Case("mv_kumaraswamy", MVKumaraswamy, (t(-0.2, 0.4, 0.7),), True),
    Case("concrete", Concrete, (t(0.8), t(0.2, -0.3, 0.5)), True),
    Case("logistic_normal", LogisticNormal, (t(0.1, -0.5, 0.4), t(0.5, 1.0, 0.8)), True),
    Case(
        "logistic_normal_log_scale",
        lambda m, s: LogisticNormal(m, log_scale=s),
        (t(0.1, -0.5, 0.4), t(-0.7, 0.0, -0.2)),
        True,
    ),
    Case(
        "logistic_normal_reference",
        lambda m, s: LogisticNormal(m, s, reference=True),
        (t(0.3, -0.5), t(0.6, 1.2)),
        True,
    ),
    Case("logistic_normal_full", full, (t(0.3, 0.0, -0.5), 0.3 * torch.ones(9).double()), True),
    Case(
        "logistic_normal_full_reference",
        lambda m, s: full(m, s, reference=True),
        (t(0.3, -0.5), t(-0.2, 0.4, 0.5, 0.1)),
        True,
    ),
    Case(
        "logistic_normal_low_rank",
        low_rank,
        (t(0.3, 0.0, -0.5), t(0.7, -0.4, 0.2), t(-1.0, -0.5, -2.0)),
        True,
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def those(condition: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """The cases for which ``condition`` holds."""
    return pytest.mark.parametrize(
        "case", list(filter(condition, CASES)), ids=lambda case: case.name
    )


VALIDATION_OFF = {"stick_kumaraswamy"}
NO_MOMENTS = {"mv_kumaraswamy", "concrete"}
states_moments = those(lambda case: case.name not in NO_MOMENTS)
# torch's own Beta follows neither vmap nor the device without data
drawn_here = those(lambda case: case.name != "stick_pyro_beta")


def interval_grid() -> tuple[Tensor, Tensor]:
    """Points of (0, 1) and their weights: the trapezoid rule in the logit."""
    z = torch.linspace(-36.0, 36.0, 3601, dtype=torch.float64)
    v = torch.sigmoid(z)
    return v, v * torch.sigmoid(-z) * (z[1] - z[0])


def simplex_grid() -> tuple[Tensor, Tensor]:
    """Points of the 3-simplex and their weights: the trapezoid rule in two stick logits."""
    z = torch.linspace(-36.0, 36.0, 289, dtype=torch.float64)
    first, second = torch.sigmoid(z)[:, None], torch.sigmoid(z)[None, :]
    left, right = torch.sigmoid(-z)[:, None], torch.sigmoid(-z)[None, :]
    points = torch.stack(torch.broadcast_tensors(first, left * second, left * right), -1)
    # ∂(π₁, π₂)/∂(v₁, v₂) = 1 - v₁, and dv = v (1 - v) dz
    weights = left * (first * left) * (second * right) * (z[1] - z[0]) ** 2
    return points.reshape(-1, 3), weights.reshape(-1)


def grid(case: Case) -> tuple[Tensor, Tensor]:
    return simplex_grid() if case.simplex else interval_grid()


def integral(case: Case, function: Callable[[Tensor], Tensor], q: dist.TorchDistribution) -> Tensor:
    """E_q[function(value)] by quadrature."""
    points, weights = grid(case)
    mass = q.log_prob(points).exp() * weights
    value = function(points)
    return (mass.reshape(mass.shape + (1,) * (value.dim() - 1)) * value).sum(0)


@every
def test_density_integrates_to_one(case: Case) -> None:
    total = integral(case, lambda v: torch.ones(len(v), dtype=v.dtype), case.build())
    assert total.item() == pytest.approx(1.0, abs=1e-7)


@every
def test_draws_have_the_moments_of_the_density(case: Case) -> None:
    q = case.build()
    torch.manual_seed(0)
    draws = q.sample((40_000,))
    for power in (1, 2):
        truth = integral(case, lambda v, power=power: v**power, q)
        sample = draws**power
        standard_error = sample.std(0) / len(sample) ** 0.5
        assert ((sample.mean(0) - truth).abs() < 4.5 * standard_error).all()


@every
def test_draws_follow_the_density_in_the_tails(case: Case) -> None:
    """Mean and variance of the log-ratio, which the smallest values decide."""
    q = case.build()
    torch.manual_seed(1)
    draws = q.sample((40_000,))

    def log_ratio(v: Tensor) -> Tensor:
        return torch.log(v[..., 0]) - torch.log(v[..., 2]) if case.simplex else torch.logit(v)

    for power in (1, 2):
        truth = integral(case, lambda v, power=power: log_ratio(v) ** power, q)
        sample = log_ratio(draws) ** power
        standard_error = sample.std() / len(sample) ** 0.5
        assert abs(sample.mean() - truth) < 4.5 * standard_error


@states_moments
def test_stated_moments_equal_quadrature(case: Case) -> None:
    q = case.build()
    mean = integral(case, lambda v: v, q)
    if case.name.startswith("logistic_normal"):
        found, error = q.mean_and_error()
        assert ((found - mean).abs() < 4.5 * error).all()
        return
    variance = integral(case, lambda v: (v - mean) ** 2, q)
    torch.testing.assert_close(q.mean, mean, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(q.variance, variance, rtol=1e-6, atol=1e-9)


@states_moments
def test_entropy_equals_quadrature(case: Case) -> None:
    q = case.build()
    truth = integral(case, lambda v: -q.log_prob(v), q)
    if case.name.startswith("logistic_normal"):
        found, error = q.entropy_and_error()
        assert torch.equal(found, q.entropy())
        assert abs(found - truth) < 4.5 * error < 0.1
        return
    assert q.entropy().item() == pytest.approx(truth.item(), abs=1e-6)


@every
def test_log_prob_gradients_are_those_of_finite_differences(case: Case) -> None:
    value = t(0.2, 0.3, 0.5) if case.simplex else t(0.3)
    leaves = tuple(p.clone().requires_grad_() for p in case.parameters)
    assert torch.autograd.gradcheck(lambda *p: case.make(*p).log_prob(value), leaves)


@every
def test_reparameterised_gradient_is_that_of_the_expectation(case: Case) -> None:
    """d/dλ E_q[cos(3 v₁)] from draws against central differences of the quadrature."""

    def test_function(v: Tensor) -> Tensor:
        return torch.cos(3 * (v[..., 0] if case.simplex else v))

    leaves = [p.clone() for p in case.parameters]
    count = 20_000
    torch.manual_seed(2)
    lanes = [p.expand(count, *p.shape).clone().requires_grad_() for p in leaves]
    if case.name.startswith("logistic_normal_full") or case.name == "logistic_normal_low_rank":
        draws = torch.vmap(lambda *p: case.make(*p).rsample(), randomness="different")(*lanes)
    else:
        draws = case.make(*lanes).rsample()
    gradients = torch.autograd.grad(test_function(draws).sum(), lanes)
    step = 1e-4
    for index, gradient in enumerate(gradients):
        for position in range(leaves[index].numel()):
            at = []
            for sign in (1, -1):
                moved = [p.clone() for p in leaves]
                moved[index].view(-1)[position] += sign * step
                at.append(integral(case, test_function, case.make(*moved)))
            truth = (at[0] - at[1]) / (2 * step)
            lane = gradient.reshape(count, -1)[:, position]
            assert abs(lane.mean() - truth) < 4.5 * lane.std() / count**0.5 + 1e-9


@every
def test_own_draws_are_scored_as_foreign_values_are(case: Case) -> None:
    q = case.build()
    torch.manual_seed(3)
    value = q.rsample((1000,))
    torch.testing.assert_close(q.log_prob(value), q.log_prob(value.clone()), rtol=1e-8, atol=1e-7)


@every
def test_score_of_a_draw_differentiates_at_the_fixed_value(case: Case) -> None:
    """sample() carries no gradient, so log_prob of it must be the plain score, cached or not."""
    leaves = tuple(p.clone().requires_grad_() for p in case.parameters)
    q = case.make(*leaves)
    torch.manual_seed(4)
    value = q.sample((50,))
    assert not value.requires_grad
    own = torch.autograd.grad(q.log_prob(value).sum(), leaves)
    foreign = torch.autograd.grad(case.make(*leaves).log_prob(value.clone()).sum(), leaves)
    for mine, theirs in zip(own, foreign, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@every
def test_values_outside_the_support_are_refused(case: Case) -> None:
    """Where validation is on, as it is here; densities on the simplex check the sum too."""
    q = case.build().expand(())
    if getattr(q, "_validate_args", False):
        with pytest.raises(ValueError, match="within the support"):
            q.log_prob(t(0.2, 0.3, 0.6) if case.simplex else t(1.2))
    else:
        assert case.name in VALIDATION_OFF


@drawn_here
def test_distributions_that_have_drawn_can_be_copied_and_saved(case: Case) -> None:
    leaves = tuple(p.clone().requires_grad_() for p in case.parameters)
    drawn = case.make(*leaves)
    value = drawn.rsample((3,))
    for q in (pickle.loads(pickle.dumps(drawn._last_draw)), copy.deepcopy(drawn._last_draw)):
        assert q is None
    torch.manual_seed(6)
    with torch.no_grad():
        constant = case.build()
        value = constant.rsample((3,))
    for q in (pickle.loads(pickle.dumps(constant)), copy.deepcopy(constant)):
        torch.testing.assert_close(q.log_prob(value), constant.log_prob(value))


@every
def test_expand_to_event_and_mask(case: Case) -> None:
    q = case.build()
    wide = q.expand((4, 2))
    assert wide.batch_shape == (4, 2)
    assert wide.event_shape == q.event_shape
    torch.manual_seed(5)
    value = wide.rsample((3,))
    assert value.shape == (3, 4, 2, *q.event_shape)
    each = q.log_prob(value)
    torch.testing.assert_close(wide.log_prob(value), each)
    torch.testing.assert_close(wide.to_event(1).log_prob(value), each.sum(-1))
    mask = torch.tensor([True, False])
    torch.testing.assert_close(wide.mask(mask).log_prob(value), torch.where(mask, each, 0.0))


@drawn_here
def test_draws_and_densities_stay_on_the_device_of_the_parameters(case: Case) -> None:
    """On torch's device without data, where a tensor made on the processor is an error."""
    with pyro.validation_enabled(False):
        q = case.make(*(p.to("meta") for p in case.parameters))
        value = q.rsample((3,))
        outputs = [value, q.log_prob(value), q.log_prob(torch.empty_like(value))]
        if case.name not in NO_MOMENTS:
            outputs += [q.mean, q.entropy()]
    assert {output.device.type for output in outputs} == {"meta"}


@drawn_here
def test_draws_and_scores_follow_vmap(case: Case) -> None:
    def lane(_: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            q = case.build()
            value = q.rsample()
        return value, q.log_prob(value)

    with pyro.validation_enabled(False):
        values, scores = torch.vmap(lane, randomness="different")(torch.zeros(5))
    assert len(values.reshape(5, -1)[:, 0].unique()) == 5
    torch.testing.assert_close(scores, case.build().log_prob(values), rtol=1e-7, atol=1e-7)


PAIRS = [
    ("kumaraswamy", Beta, (t(1.2), t(2.5))),
    ("kumaraswamy_u_shaped", dist.Beta, (t(0.6), t(0.9))),
    ("kumaraswamy", Kumaraswamy, (t(-0.2), t(0.5))),
    ("stick_kumaraswamy", dist.Dirichlet, (t(0.8, 1.5, 2.0),)),
    ("stick_kumaraswamy", StickBreaking.kumaraswamy, (t(0.0, 0.3), t(0.6, 0.4))),
    ("dirichlet", dist.Dirichlet, (t(1.0, 1.2, 0.7),)),
    ("logistic_normal", LogisticNormal, (t(0.0, -0.2, 0.4), t(0.9, 0.6, 1.0))),
    ("logistic_normal", full, (t(0.0, -0.2, 0.4), 0.2 * torch.ones(9).double())),
    ("logistic_normal_reference", LogisticNormal, (t(0.0, -0.2, 0.4), t(0.9, 0.6, 1.0))),
    ("logistic_normal_low_rank", LogisticNormal, (t(0.0, -0.2, 0.4), t(0.9, 0.6, 1.0))),
]


@pytest.mark.parametrize(("name", "other", "parameters"), PAIRS)
def test_kl_equals_quadrature(name: str, other: Callable, parameters: tuple[Tensor, ...]) -> None:
    case = next(case for case in CASES if case.name == name)
    p, q = case.build(), other(*parameters)
    truth = integral(case, lambda v: p.log_prob(v) - q.log_prob(v), p)
    assert kl_divergence(p, q).item() == pytest.approx(truth.item(), abs=1e-6)
    assert math.isfinite(truth)
