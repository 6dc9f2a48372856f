"""Starting from another fit; the joint Gaussian against an exact posterior; the encoder."""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from vitools import Problem, cavi
from vitools.errors import ModelError, NumericalError, OptionError
from vitools.guides import (
    Amortized,
    AutoDirichlet,
    AutoFlow,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMultivariate,
)
from vitools.models import coin


@pytest.fixture(autouse=True)
def own_store_and_generator(clean_process):
    """Each test works on its own parameter store and leaves torch's generator alone."""
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def set_up(guide, *args: object, **kwargs: object):
    with poutine.block():
        guide(*args, **kwargs)
    return guide


# -- starting from another fit ------------------------------------------------------------------

TARGETS = {
    "level": dist.Normal(torch.tensor([3.0, -1.0]).double(), torch.tensor(0.3).double()),
    "rate": dist.Gamma(torch.tensor(30.0).double(), 10.0),
    "share": dist.Beta(torch.tensor(20.0).double(), 60.0),
    "mix": dist.Dirichlet(torch.tensor([4.0, 10.0, 26.0]).double()),
}


def priors() -> None:
    zero = torch.zeros((), dtype=torch.float64)
    with pyro.plate("pair", 2):
        pyro.sample("level", dist.Normal(zero, 10.0))
    pyro.sample("rate", dist.Gamma(zero + 1, 1.0))
    pyro.sample("share", dist.Beta(zero + 1, 1.0))
    pyro.sample("mix", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))
    pyro.sample("x", dist.Normal(zero, 1.0), obs=zero)


def sampled(n: int, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: target.sample((n,)) for name, target in TARGETS.items()}


FITS = {
    "draws": SimpleNamespace(sample=sampled),
    "marginals": SimpleNamespace(marginal=TARGETS.__getitem__),
}


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize(
    "guide_class", [AutoLogisticNormal, AutoKumaraswamy, AutoDirichlet, AutoMultivariate]
)
def test_starts_at_the_moments_of_another_fit(guide_class: type, kind: str) -> None:
    guide = set_up(guide_class(priors))
    held = dict(guide.named_parameters())
    state = torch.random.get_rng_state()
    guide.initialise_from(FITS[kind])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter is held[name] for name, parameter in guide.named_parameters())
    for name, target in TARGETS.items():
        draws = guide.marginal(name).sample((4000,))
        sd = target.variance.sqrt()
        assert ((draws.mean(0) - target.mean).abs() < 0.35 * sd).all(), name
        assert ((draws.std(0) / sd).log().abs() < 0.35).all(), name


def test_a_new_guide_sees_its_model_on_the_data_of_the_fit() -> None:
    flips = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    fit = cavi(Problem(coin.model, flips))
    guide = AutoKumaraswamy(coin.model)
    guide.initialise_from(fit)
    q, truth = guide.marginal("p"), fit.marginal("p")
    assert torch.allclose(q.mean, truth.mean.to(q.mean), atol=0.02)
    assert torch.allclose(q.variance, truth.variance.to(q.mean), rtol=0.15)


def test_refuses_a_fit_of_another_shape() -> None:
    guide = set_up(AutoKumaraswamy(priors))
    fit = SimpleNamespace(sample=lambda n, seed: {"level": torch.zeros(n, 5)})
    with pytest.raises(OptionError, match=r"'level': expected draws of shape \(2,\)"):
        guide.initialise_from(fit)
    with pytest.raises(OptionError, match="call it once"):
        AutoKumaraswamy(priors).initialise_from(FITS["draws"])


# -- the joint Gaussian ---------------------------------------------------------------------------

_GENERATOR = torch.Generator().manual_seed(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_GENERATOR, dtype=torch.float64)


X = noise(40, 2)
X[:, 1] += X[:, 0]
Y = X @ torch.tensor([1.0, -2.0]).double() + 0.5 * noise(40)


def regression() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    w = pyro.sample("w", dist.Normal(zero, 1.0).to_event(1))
    b = pyro.sample("b", dist.Normal(zero[0], 1.0))
    with pyro.plate("rows", 40):
        pyro.sample("y", dist.Normal(w @ X.mT + b.unsqueeze(-1), 0.5), obs=Y)


def exact_regression() -> tuple[Tensor, Tensor]:
    design = torch.cat([X, torch.ones(40, 1).double()], 1)
    covariance = (design.mT @ design / 0.25 + torch.eye(3).double()).inverse()
    return covariance @ design.mT @ Y / 0.25, covariance


@pytest.mark.parametrize("rank", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_joint_gaussian_finds_the_correlations_of_a_regression(rank: int | None) -> None:
    guide = AutoMultivariate(regression, rank=rank)
    for rate, steps in ((0.05, 250), (0.01, 200), (0.002, 150)):
        optimiser = pyro.optim.Adam({"lr": rate, "betas": (0.9, 0.99)})
        svi = SVI(regression, guide, optimiser, Trace_ELBO(num_particles=2))
        for _ in range(steps):
            svi.step()
    mean, covariance = exact_regression()
    q = torch.distributions.MultivariateNormal(
        guide.get_posterior().loc.detach(), guide.covariance()
    )
    p = torch.distributions.MultivariateNormal(mean, covariance)
    precision = p.precision_matrix
    mean_field_gap = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    assert torch.distributions.kl_divergence(q, p) < (0.1 if rank is None else 0.5) * mean_field_gap
    marginal = guide.marginal("w").sample((20_000,))
    torch.testing.assert_close(marginal.T.cov(), guide.covariance()[:2, :2], rtol=0.1, atol=2e-3)
    assert guide.marginal("b").sample().shape == ()


@pytest.mark.parametrize("rank", [None, 2, 5])
def test_joint_gaussian_takes_correlations_from_draws(rank: int | None) -> None:
    mean, covariance = exact_regression()
    exact = torch.distributions.MultivariateNormal(mean, covariance)

    def sample(n: int, seed: int) -> dict[str, Tensor]:
        draws = exact.sample((n,))
        return {"w": draws[:, :2], "b": draws[:, 2]}

    guide = set_up(AutoMultivariate(regression, rank=rank))
    guide.initialise_from(SimpleNamespace(sample=sample))
    q = torch.distributions.MultivariateNormal(
        guide.get_posterior().loc.detach(), guide.covariance()
    )
    assert torch.distributions.kl_divergence(q, exact) < 0.02
    with pytest.raises(OptionError, match="no draws of 'b'"):
        guide.initialise_from(SimpleNamespace(sample=lambda n, seed: {"w": sample(n, seed)["w"]}))


@pytest.mark.parametrize("rank", [None, 2])
def test_joint_gaussian_follows_vmap_and_graph_tracing(rank: int | None) -> None:
    guide = set_up(AutoMultivariate(priors, rank=rank))

    def lane(_: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        trace = poutine.trace(guide).get_trace()
        return {k: trace.nodes[k]["value"] for k in TARGETS}, trace.log_prob_sum()

    with pyro.validation_enabled(False), poutine.block():
        values, log_q = torch.vmap(lane, randomness="different")(torch.zeros(4))
        make_fx(lambda x: lane(x)[1])(torch.zeros(1))
    assert len(log_q.unique()) == 4
    assert values["mix"].shape == (4, 3)


def test_joint_gaussian_refuses_minibatches() -> None:
    def minibatch() -> None:
        with pyro.plate("rows", 10, subsample_size=2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2))

    with pytest.raises(ModelError, match="plate 'rows' is subsampled"):
        set_up(AutoMultivariate(minibatch))
    with pytest.raises(OptionError, match="rank"):
        AutoMultivariate(minibatch, rank=0)


# -- the encoder ----------------------------------------------------------------------------------

LOCAL = noise(200)
VIEWS = LOCAL.unsqueeze(-1) + 0.5 * noise(200, 2)


def factor_model(x: Tensor, batch: int | None = None) -> None:
    zero = torch.zeros((), dtype=x.dtype)
    pyro.sample("shift", dist.Normal(zero, 0.1))
    with pyro.plate("rows", len(x), subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Normal(zero, 1.0))
        pyro.sample("mix", dist.Dirichlet(torch.ones(3, dtype=x.dtype)))
        pyro.sample(
            "x", dist.Normal(z.unsqueeze(-1), 0.5).expand([*z.shape, 2]).to_event(1), obs=x[rows]
        )


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs)


def encoder(**options: object) -> Amortized:
    return Amortized(
        factor_model, plate="rows", features=lambda x, batch=None: x, network=linear, **options
    )


@pytest.mark.parametrize("vectorized", [pytest.param(False, marks=pytest.mark.slow), True])
def test_encoder_learns_the_exact_local_posterior_from_minibatches(vectorized: bool) -> None:
    """z | x ~ N(v Σ x / .25, v), v = 1/9: linear in x, so a linear encoder can be exact."""
    guide = encoder()
    elbo = TraceMeanField_ELBO(num_particles=2, vectorize_particles=vectorized, max_plate_nesting=1)
    for rate, steps in ((0.03, 300), (0.003, 150)):
        svi = SVI(factor_model, guide, pyro.optim.Adam({"lr": rate}), elbo)
        for _ in range(steps):
            svi.step(VIEWS, 50)
    q = guide.marginal("z")
    assert q.batch_shape == (200,)
    assert ((q.mean - VIEWS.sum(-1) / 0.25 / 9).abs() < 0.1).all()
    assert ((q.stddev * 3).log().abs() < 0.15).all()
    assert guide.marginal("mix").sample().shape == (200, 3)


def test_encoder_starts_at_the_prior_and_follows_vmap() -> None:
    guide = set_up(
        Amortized(factor_model, plate="rows", features=lambda x: x, init_scale=1.0, jitter=0.0),
        VIEWS,
    )
    q = guide.marginal("z")
    torch.testing.assert_close(q.mean, torch.zeros(200).double())
    torch.testing.assert_close(q.stddev, torch.ones(200).double())

    def lane(_: Tensor) -> Tensor:
        return poutine.trace(guide).get_trace(VIEWS).log_prob_sum()

    with pyro.validation_enabled(False), poutine.block():
        assert len(torch.vmap(lane, randomness="different")(torch.zeros(3)).unique()) == 3


def test_encoder_weights_follow_the_parameter_store() -> None:
    """A saved fit is read back through Pyro's store, so the network must take weights from it."""
    guide = set_up(encoder(), VIEWS)
    state = pyro.get_param_store().get_state()
    moved = {name: nn.Parameter(p.detach() + 1) for name, p in state["params"].items()}
    with pyro.get_param_store().scope({"params": moved, "constraints": state["constraints"]}):
        set_up(guide, VIEWS)
        found = guide.marginal("z").mean
    weights = {name.removeprefix("Amortized."): value for name, value in moved.items()}
    encoded = VIEWS @ weights["weights.weight"].mT + weights["weights.bias"] + weights["output"]
    torch.testing.assert_close(found, encoded[:, 0].detach())


def test_encoder_refuses_what_it_cannot_serve() -> None:
    with pytest.raises(OptionError, match=r"expected a tensor of shape \[200, F\]"):
        set_up(Amortized(factor_model, plate="rows", features=lambda x: x[:3]), VIEWS)
    with pytest.raises(OptionError, match="plate 'columns' holds no continuous latent"):
        set_up(Amortized(factor_model, plate="columns", features=lambda x: x), VIEWS)

    def nested(x: Tensor) -> None:
        with pyro.plate("outer", 2, dim=-2), pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ModelError, match="site 'z' is in the plates"):
        set_up(Amortized(nested, plate="rows", features=lambda x: x), VIEWS)


# -- starting from a search -----------------------------------------------------------------------


def far_away(x: Tensor) -> None:
    level = pyro.sample("level", dist.Normal(x.new_zeros(()), 100.0))
    pyro.sample("weights", dist.Dirichlet(x.new_full((4,), 0.05)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)


@pytest.mark.parametrize(
    "guide_class", [AutoLogisticNormal, AutoKumaraswamy, AutoDirichlet, AutoMultivariate, AutoFlow]
)
def test_search_starts_at_the_posterior_of_a_wide_prior(guide_class: type) -> None:
    """level | x ~ N(Σx / (n + 10⁻⁴), 1 / (n + 10⁻⁴)), however far it is from the prior's centre."""
    x = 250.0 + noise(25)
    guide = guide_class(far_away)
    state = torch.random.get_rng_state()
    guide.initialise_near_mode(Problem(far_away, x))
    assert torch.equal(torch.random.get_rng_state(), state)
    draws = torch.stack([guide(x)["level"].detach() for _ in range(500)])
    assert abs(draws.mean() - x.sum() / 25.0001) < 0.1
    assert abs((draws.std() * 5).log()) < 0.2


def test_search_stays_off_the_infinite_density_of_a_hierarchy() -> None:
    """At τ → 0 the joint density of eight equal schools grows without limit; no draw may be there."""

    def schools(y: Tensor) -> None:
        tau = pyro.sample("tau", dist.HalfCauchy(y.new_ones(())))
        with pyro.plate("schools", 8):
            theta = pyro.sample("theta", dist.Normal(0.0, tau))
            pyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    y = torch.zeros(8, dtype=torch.float64)
    problem = Problem(schools, y)
    at = [problem.log_joint({"tau": y[0] + t, "theta": y}) for t in (1e-2, 1e-4, 1e-6)]
    assert at[0] < at[1] < at[2]
    guide = AutoLogisticNormal(schools)
    guide.initialise_near_mode(problem)
    draws = guide.marginal("tau").sample((1000,))
    assert (draws > 1e-2).all()


def test_search_says_when_there_is_no_density_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(x: Tensor) -> None:
        level = pyro.sample("level", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    problem = Problem(nowhere, torch.zeros((), dtype=torch.float64))
    never = SimpleNamespace(log_density=lambda: torch.tensor(-torch.inf, dtype=torch.float64))
    monkeypatch.setattr(problem, "factors", lambda values: never)
    with pytest.raises(NumericalError, match="model 'nowhere': no start of finite posterior"):
        AutoLogisticNormal(nowhere).initialise_near_mode(problem)


@pytest.mark.parametrize("guide_class", [AutoMultivariate, AutoFlow])
def test_joint_guides_fit_a_sparse_simplex_in_single_precision(guide_class: type) -> None:
    """Entries far below the rounding error of 1 must not reach the density as zeros."""

    def sparse() -> None:
        alpha = torch.full((50,), 0.02, dtype=torch.float32)
        pi = pyro.sample("pi", dist.Dirichlet(alpha, validate_args=False))
        counts = 10.0 * torch.nn.functional.one_hot(torch.tensor(3), 50)
        pyro.sample("x", dist.Multinomial(10, pi, validate_args=False), obs=counts)

    guide = guide_class(sparse)
    svi = SVI(sparse, guide, pyro.optim.Adam({"lr": guide.learning_rate}), Trace_ELBO())
    losses = torch.tensor([svi.step() for _ in range(150)])
    assert losses.isfinite().all()
    assert losses[-20:].mean() < losses[:20].mean()
