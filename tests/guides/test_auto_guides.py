"""Every automatic guide: plain pyro.infer.SVI, vmap, graph tracing, subsampling, starts, refusals."""

import copy
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from vitools.errors import ModelError, OptionError
from vitools.guides import (
    AutoDirichlet,
    AutoFlow,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
    AutoMultivariate,
)

GUIDES = [AutoMeanField, AutoLogisticNormal, AutoKumaraswamy, AutoDirichlet]
every_guide = pytest.mark.parametrize("guide_class", GUIDES)


@pytest.fixture(autouse=True)
def own_store_and_generator(clean_process):
    """Each test works on its own parameter store and leaves torch's generator alone."""
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def kitchen_sink(x: Tensor, subsample_size: int | None = None) -> None:
    """All supports, nested plates, a subsampled plate with local latents, an enumerated site."""
    one = torch.ones((), dtype=x.dtype)
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([1.0, 1.0, 0.3], dtype=x.dtype)))
    pyro.sample("tau", dist.Gamma(0.001 * one, 0.001 * one))
    spread = pyro.sample("spread", dist.HalfCauchy(one))
    share = pyro.sample("share", dist.Beta(0.5 * one, 2 * one))
    pyro.sample("cholesky", dist.LKJCholesky(3, one))
    with pyro.plate("components", 3):
        mu = pyro.sample("mu", dist.Normal(0 * one, spread))
        pyro.sample("topics", dist.Dirichlet(torch.ones(2, 4, dtype=x.dtype)).to_event(1))
    with pyro.plate("rows", len(x), subsample_size=subsample_size) as rows:
        local = pyro.sample("local", dist.Normal(0 * one, one))
        rate = pyro.sample("rate", dist.Uniform(0 * one, one))
        z = pyro.sample("z", dist.Categorical(weights))
        loc = Vindex(mu.unsqueeze(-2))[..., z] + local * share + rate
        pyro.sample("x", dist.Normal(loc, one), obs=x[rows])


def enumerated(x: Tensor, subsample_size: int | None = None) -> None:
    config_enumerate(kitchen_sink)(x, subsample_size)


DATA = torch.tensor([3.0, 1.0, 0.0, 6.0, 2.0], dtype=torch.float64)


def set_up(guide: AutoMeanField, *args: object) -> AutoMeanField:
    with poutine.block():
        guide(*args)
    return guide


@every_guide
@pytest.mark.parametrize("subsample_size", [None, 2])
@pytest.mark.parametrize("vectorized", [False, True])
def test_runs_in_plain_svi_with_enumeration(
    guide_class: type[AutoMeanField], subsample_size: int | None, vectorized: bool
) -> None:
    guide = guide_class(enumerated)
    elbo = TraceEnum_ELBO(num_particles=2, vectorize_particles=vectorized, max_plate_nesting=1)
    svi = SVI(enumerated, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    losses = [svi.step(DATA, subsample_size) for _ in range(5)]
    assert all(torch.isfinite(torch.tensor(loss)) for loss in losses)
    elbo.loss_and_grads(
        enumerated, guide, DATA, subsample_size
    )  # a step of SVI zeroes them at its end
    for name, parameter in guide.named_parameters():
        assert parameter.dtype == torch.float64, name
        assert parameter.isfinite().all(), name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert "z" not in guide.site_families()
    assert guide.marginal("local").batch_shape == (5,)


@every_guide
@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("vectorized", [False, True])
def test_runs_in_plain_svi_without_discrete_sites(
    guide_class: type[AutoMeanField], elbo: Callable, vectorized: bool
) -> None:
    def continuous(x: Tensor) -> None:
        shape = pyro.sample("shape", dist.Dirichlet(torch.ones(3, dtype=x.dtype)))
        p = pyro.sample("p", dist.Beta(torch.ones((), dtype=x.dtype), 2.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(shape[..., 0] + p, 1.0), obs=x)

    guide = guide_class(continuous)
    loss = elbo(num_particles=3, vectorize_particles=vectorized, max_plate_nesting=1)
    svi = SVI(continuous, guide, pyro.optim.Adam({"lr": 0.01}), loss)
    assert all(torch.isfinite(torch.tensor(svi.step(DATA))) for _ in range(5))


@every_guide
def test_a_trace_can_be_vmapped_with_different_draws(guide_class: type[AutoMeanField]) -> None:
    guide = set_up(guide_class(enumerated), DATA)

    def lane(_: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        trace = poutine.trace(guide).get_trace(DATA)
        values = {name: trace.nodes[name]["value"] for name in guide.site_families()}
        return values, trace.log_prob_sum()

    with pyro.validation_enabled(False), poutine.block():
        values, log_q = torch.vmap(lane, randomness="different")(torch.zeros(4))
    assert log_q.isfinite().all()
    assert len(log_q.unique()) == 4
    foreign = sum(
        guide.marginal(name).log_prob(value).reshape(4, -1).sum(-1)
        for name, value in values.items()
    )
    torch.testing.assert_close(log_q, foreign, rtol=1e-6, atol=1e-5)


@every_guide
def test_a_trace_is_one_graph(guide_class: type[AutoMeanField]) -> None:
    guide = set_up(guide_class(enumerated), DATA)

    def log_q(_: Tensor) -> Tensor:
        return poutine.trace(guide).get_trace(DATA).log_prob_sum()

    with pyro.validation_enabled(False), poutine.block():
        graph = make_fx(log_q)(torch.zeros(1))
        assert len({graph(torch.zeros(1)).item() for _ in range(3)}) == 3


@every_guide
def test_start_is_deterministic_and_draws_nothing_global(
    guide_class: type[AutoMeanField],
) -> None:
    state = torch.random.get_rng_state()
    first, second, other = guide_class(enumerated), guide_class(enumerated), None
    other = guide_class(enumerated, seed=1)
    for guide in (first, second, other):
        guide._setup_prototype(DATA)
    assert torch.equal(torch.random.get_rng_state(), state)
    same = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    changed = zip(first.parameters(), other.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in changed)


@every_guide
def test_start_matches_the_prior(guide_class: type[AutoMeanField]) -> None:
    def prior() -> None:
        pyro.sample("normal", dist.Normal(3.0, 2.0))
        pyro.sample("positive", dist.Gamma(4.0, 2.0))
        pyro.sample("beta", dist.Beta(2.0, 6.0))
        pyro.sample("simplex", dist.Dirichlet(torch.tensor([2.0, 1.0, 5.0])))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    guide = set_up(guide_class(prior, jitter=0.0, init_scale=1.0))
    draws = {name: guide.marginal(name).sample((20_000,)) for name in guide.site_families()}
    for name, mean, sd in (("normal", 3.0, 2.0), ("positive", 2.0, 1.0), ("beta", 0.25, 0.1443)):
        assert draws[name].mean().item() == pytest.approx(mean, rel=0.07)
        assert draws[name].std().item() == pytest.approx(sd, rel=0.2)
    expected = torch.tensor([2.0, 1.0, 5.0]) / 8
    torch.testing.assert_close(draws["simplex"].mean(0), expected, rtol=0.15, atol=0.01)
    with pyro.get_param_store().scope():
        narrow = set_up(guide_class(prior, jitter=0.0, init_scale=0.1))
    for name, sd in (("normal", 0.2), ("positive", 0.1), ("beta", 0.0144)):
        assert narrow.marginal(name).sample((20_000,)).std().item() == pytest.approx(sd, rel=0.2)


def test_hopeless_priors_still_start_somewhere() -> None:
    def vague() -> None:
        pyro.sample("cauchy", dist.Cauchy(5.0, 1.0))
        pyro.sample("half_cauchy", dist.HalfCauchy(1.0))
        pyro.sample("inverse_gamma", dist.InverseGamma(0.01, 0.01))
        pyro.sample("gamma", dist.Gamma(0.001, 0.001))
        pyro.sample("sparse", dist.Dirichlet(torch.full((50,), 0.001)))
        pyro.sample("beta", dist.Beta(0.001, 0.001))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    for guide_class in GUIDES:
        guide = set_up(guide_class(vague))
        for name in guide.site_families():
            marginal = guide.marginal(name)
            value = marginal.rsample((100,))
            assert value.isfinite().all(), (guide_class, name)
            assert marginal.log_prob(value).isfinite().all(), (guide_class, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_have_the_dtype_of_the_site(dtype: torch.dtype) -> None:
    guide = set_up(AutoKumaraswamy(enumerated), DATA.to(dtype))
    assert {parameter.dtype for parameter in guide.parameters()} == {dtype}
    assert {guide.marginal(name).sample().dtype for name in guide.site_families()} == {dtype}


def test_works_with_predictive_and_deepcopy() -> None:
    guide = set_up(AutoKumaraswamy(enumerated), DATA)
    for parallel in (False, True):
        draws = pyro.infer.Predictive(kitchen_sink, guide=guide, num_samples=3, parallel=parallel)
        assert draws(DATA)["share"].reshape(3).isfinite().all()
    twin = copy.deepcopy(guide)
    assert torch.equal(twin.marginal("share").mean, guide.marginal("share").mean)


def test_bounded_supports_away_from_zero() -> None:
    def bounded() -> None:
        pyro.sample("level", dist.Uniform(2.0, 5.0))
        pyro.sample("tail", dist.Pareto(3.0, 2.5))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    guide = set_up(AutoKumaraswamy(bounded))
    assert guide.site_families() == {"level": "normal", "tail": "normal"}
    level = guide.marginal("level").sample((1000,))
    assert 2 < level.min() < level.max() < 5
    assert guide.marginal("tail").sample((1000,)).min() > 3


@pytest.mark.parametrize("guide_class", [*GUIDES, AutoMultivariate, AutoFlow])
@pytest.mark.filterwarnings("ignore:Singular sample detected")  # torch: unsymmetric by rounding
def test_matrices_are_positive_definite_or_triangular(guide_class: type[AutoMeanField]) -> None:
    def matrices(x: Tensor) -> None:
        eye = torch.eye(3, dtype=x.dtype)
        with pyro.plate("pair", 2):
            precision = pyro.sample("precision", dist.Wishart(x.new_tensor(5.0), eye))
        flat = dist.ImproperUniform(torch.distributions.constraints.lower_cholesky, (), (3, 3))
        factor = pyro.sample("factor", flat)
        pyro.sample("x", dist.MultivariateNormal(0 * x, precision[..., 0, :, :] + eye), obs=x)
        pyro.sample("y", dist.MultivariateNormal(0 * x, scale_tril=factor + eye), obs=x)

    x = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    guide = guide_class(matrices)
    svi = SVI(matrices, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert all(torch.isfinite(torch.tensor(svi.step(x))) for _ in range(5))
    drawn = guide(x)
    assert drawn["precision"].shape == (2, 3, 3)
    assert (torch.linalg.eigvalsh(drawn["precision"]) > 0).all()
    assert guide._latent_sites["factor"].location.shape == (6,)


def test_families_can_be_chosen_by_site() -> None:
    guide = AutoMeanField(enumerated, {"share": "kumaraswamy", "weights": "dirichlet"})
    families = set_up(guide, DATA).site_families()
    assert families["share"] == "kumaraswamy"
    assert families["weights"] == "dirichlet"
    assert families["topics"] == "logistic_normal"
    assert families["rate"] == "normal"


def test_kumaraswamy_families_by_support() -> None:
    families = set_up(AutoKumaraswamy(enumerated), DATA).site_families()
    assert families["rate"] == families["share"] == "kumaraswamy"
    assert families["weights"] == families["topics"] == "stick_kumaraswamy"
    assert families["tau"] == families["mu"] == families["cholesky"] == "normal"


def test_marginal_carries_no_gradient_and_survives_training() -> None:
    guide = set_up(AutoKumaraswamy(enumerated), DATA)
    before = guide.marginal("share")
    svi = SVI(enumerated, guide, pyro.optim.Adam({"lr": 0.1}), TraceEnum_ELBO(max_plate_nesting=1))
    mean = before.mean.clone()
    for _ in range(3):
        svi.step(DATA)
    assert not before.rsample().requires_grad
    assert torch.equal(before.mean, mean)
    assert not torch.equal(guide.marginal("share").mean, mean)


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"nowhere": "normal"}, "no continuous latent"),
        ({"share": "magic"}, "no family is called 'magic'"),
        ({"mu": "dirichlet"}, "'mu' has support"),
    ],
)
def test_refuses_impossible_families(families: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        AutoMeanField(enumerated, families)._setup_prototype(DATA)


def test_refuses_models_it_cannot_cover() -> None:
    def counting() -> None:
        n = pyro.sample("n", dist.Poisson(3.0))
        pyro.sample("x", dist.Normal(n, 1.0), obs=torch.tensor(1.0))

    def sequential() -> None:
        for i in pyro.plate("steps", 3):
            pyro.sample(f"mu_{i}", dist.Normal(0.0, 1.0))

    class Drawless(dist.Normal):
        def sample(self, sample_shape=()):
            raise NotImplementedError

    def drawless() -> None:
        pyro.sample("flat", Drawless(0.0, 1.0))

    def wholly_discrete() -> None:
        pyro.sample("z", dist.Bernoulli(0.5))

    def moving() -> None:
        theta = pyro.sample("theta", dist.LogNormal(0.0, 1.0))
        pyro.sample("u", dist.Uniform(0.0, theta))

    def moving_tail() -> None:
        theta = pyro.sample("theta", dist.LogNormal(0.0, 1.0))
        pyro.sample("u", dist.Pareto(theta, 3.0))

    for model in (moving, moving_tail):
        for jitter in (0.0, 0.1):
            with pytest.raises(ModelError, match="'u' has a support whose ends move with other"):
                AutoMeanField(model, jitter=jitter)._setup_prototype()
    with pytest.raises(ModelError, match="site 'flat' has a prior that cannot be drawn from"):
        AutoMeanField(drawless)._setup_prototype()
    with pytest.raises(ModelError, match="no continuous latent"):
        AutoMeanField(wholly_discrete)._setup_prototype()
    with pytest.raises(ModelError, match=r"site 'n' is discrete \(Poisson\)"):
        AutoMeanField(counting)._setup_prototype()
    with pytest.raises(ModelError, match="sequential plate 'steps'"):
        AutoMeanField(sequential)._setup_prototype()


def test_refuses_impossible_options() -> None:
    for options in ({"init_scale": 0.0}, {"jitter": 1.0}, {"jitter": -0.1}):
        with pytest.raises(OptionError, match=next(iter(options))):
            AutoMeanField(enumerated, **options)
    with pytest.raises(OptionError, match="call it once"):
        AutoMeanField(enumerated).marginal("mu")
    with pytest.raises(OptionError, match="is not in this guide"):
        set_up(AutoMeanField(enumerated), DATA).marginal("z")
