"""Each unbiased gradient estimator against the exact gradient, by quadrature or enumeration."""

import math
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedNormal

from vitools import Problem, svi
from vitools.distributions.gaussian import Normal
from vitools.engines.graph import record
from vitools.engines.objectives import Elbo, ImportanceWeighted, ScoreFunction
from vitools.errors import NotSupportedError, OptionError
from vitools.guides import AutoDirichlet, AutoMeanField
from vitools.isolation import isolated, seeded

# ---- how estimates are taken -----------------------------------------------------------------


def estimates(spec, problem, guide, count, seed=0):
    """Losses ``[count]`` and gradients ``{parameter: [count, …]}`` of an objective.

    The estimator is recorded as a graph, and the graph run on all draws at once.
    """
    step, names = recorded_step(spec, problem, guide, seed)
    with seeded(seed), torch.no_grad():
        losses, *gradients = torch.vmap(lambda _: step(), randomness="different")(
            torch.zeros(count)
        )
    return losses, dict(zip(names, gradients, strict=True))


def recorded_step(spec, problem, guide, seed=0):
    """Loss and gradients as a graph, and the parameters' names."""
    step, names, objective = python_step(spec, problem, guide, seed)
    assert objective.is_recordable
    with seeded(seed):
        return record(step, (), "the test"), names  # a notice of failure would be an error


def python_step(spec, problem, guide, seed=0):
    with seeded(seed), isolated() as state:
        objective = spec(problem, guide)
        objective.loss()
    parameters = dict(state["params"])

    def step():
        with isolated(state), torch.enable_grad():
            loss = objective.loss()
            gradients = torch.autograd.grad(loss, list(parameters.values()))
        return loss.detach(), *(gradient.detach() for gradient in gradients)

    return step, list(parameters), objective


def exact_gradient(bound, **at):
    """-bound(**parameters) and its gradient."""
    leaves = {name: torch.as_tensor(value).clone().requires_grad_() for name, value in at.items()}
    loss = -bound(**leaves)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return loss.detach(), dict(zip(leaves, gradients, strict=True))


def assert_unbiased(found, expected):
    """Every mean within 4 of its standard errors, none of which is zero or large."""
    losses, gradients = found
    loss, exact = expected
    pairs = {"loss": (losses, loss), **{k: (gradients[k], exact[k]) for k in exact}}
    assert set(gradients) == set(exact)
    for name, (draws, truth) in pairs.items():
        error = draws.std(0) / math.sqrt(len(draws))
        assert bool((error > 0).all()), name
        assert bool((error < 0.2 * (1 + truth.abs())).all()), name
        assert bool(((draws.mean(0) - truth).abs() < 4 * error).all()), name


def hermite(count):
    """Nodes and weights of the expectation under N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.tensor(nodes), torch.tensor(weights / weights.sum())


def log_normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - torch.log(torch.as_tensor(scale)) - 0.9189385332046727


# ---- one latent, and a parameter of the model --------------------------------------------------

DATA = torch.tensor([0.3, 1.9, -0.4], dtype=torch.float64)
START = {"shift": 0.4, "loc": 0.7, "log_scale": -0.6}


def shifted_model():
    shift = pyro.param("shift", torch.tensor(START["shift"]))
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.StudentT(4.0, x + shift, 0.8), obs=DATA)


def normal_guide():
    loc = pyro.param("loc", torch.tensor(START["loc"]))
    log_scale = pyro.param("log_scale", torch.tensor(START["log_scale"]))
    pyro.sample("x", Normal(loc, log_scale.exp()))


def shifted_log_weight(noise, shift, loc, log_scale):
    x = loc + log_scale.exp() * noise
    likelihood = torch.distributions.StudentT(4.0, x[..., None] + shift, 0.8).log_prob(DATA)
    return likelihood.sum(-1) + log_normal(x, 0.0, 1.0) - log_normal(x, loc, log_scale.exp())


def shifted_bound(num_particles):
    """E log mean w, by Gauss-Hermite quadrature in as many dims as there are draws."""

    def bound(**parameters):
        nodes, weights = hermite(60 if num_particles < 3 else 30)
        log_w = shifted_log_weight(nodes, **parameters)
        grid = torch.stack(torch.meshgrid(*[log_w] * num_particles, indexing="ij"))
        mass = torch.stack(torch.meshgrid(*[weights] * num_particles, indexing="ij")).prod(0)
        return (mass * (grid.logsumexp(0) - math.log(num_particles))).sum()

    return bound


ELBO_SPECS = [
    Elbo(),
    Elbo(gradient="sticking_the_landing"),
    pytest.param(Elbo(4), marks=pytest.mark.slow),
    pytest.param(Elbo(3, gradient="sticking_the_landing"), marks=pytest.mark.slow),
    Elbo(analytic_kl=True),
]


@pytest.mark.parametrize("spec", ELBO_SPECS)
def test_elbo_gradients_on_one_latent(spec):
    found = estimates(spec, Problem(shifted_model), normal_guide, 4000)
    assert_unbiased(found, exact_gradient(shifted_bound(1), **START))


@pytest.mark.parametrize("gradient", ["pathwise", "doubly_reparameterised"])
@pytest.mark.parametrize("num_particles", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_importance_weighted_gradients_on_one_latent(gradient, num_particles):
    spec = ImportanceWeighted(num_particles, gradient)
    found = estimates(spec, Problem(shifted_model), normal_guide, 4000)
    assert_unbiased(found, exact_gradient(shifted_bound(num_particles), **START))


# ---- two latents, one drawn given the other -----------------------------------------------------

PAIR = {"mean": -0.1, "log_sd": -0.9, "loc": 0.4, "slope": 0.7, "log_scale": -0.5}


def scaled_model():
    """A scale and a location whose prior it is: neither normal nor independent a posteriori."""
    scale = pyro.sample("scale", dist.LogNormal(-0.2, 0.5))
    x = pyro.sample("x", dist.Normal(0.0, scale))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.StudentT(4.0, x, scale), obs=DATA)


def scaled_guide():
    p = {name: pyro.param(name, torch.tensor(value)) for name, value in PAIR.items()}
    log_scale = Normal(p["mean"], p["log_sd"].exp())
    exponential = [dist.transforms.ExpTransform()]
    scale = pyro.sample("scale", dist.TransformedDistribution(log_scale, exponential))
    pyro.sample("x", Normal(p["loc"] + p["slope"] * scale.log(), p["log_scale"].exp()))


def scaled_bound(mean, log_sd, loc, slope, log_scale):
    """By Gauss-Hermite quadrature in both dims."""
    nodes, weights = hermite(50)
    log_s = (mean + log_sd.exp() * nodes)[:, None]
    centre = loc + slope * log_s
    x, s = centre + log_scale.exp() * nodes, log_s.exp()
    log_q = log_normal(log_s, mean, log_sd.exp()) + log_normal(x, centre, log_scale.exp())
    log_p = log_normal(log_s, torch.tensor(-0.2), 0.5) + log_normal(x, 0.0, s)
    rows = torch.distributions.StudentT(4.0, x[..., None], s[..., None]).log_prob(DATA).sum(-1)
    return (torch.outer(weights, weights) * (log_p + rows - log_q)).sum()


@pytest.mark.parametrize("spec", ELBO_SPECS)
def test_elbo_gradients_on_two_dependent_latents(spec):
    found = estimates(spec, Problem(scaled_model), scaled_guide, 4000)
    assert_unbiased(found, exact_gradient(scaled_bound, **PAIR))


def test_sticking_the_landing_has_no_noise_at_the_posterior():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(x, 1.0), obs=DATA)

    def guide():
        loc = pyro.param("loc", DATA.sum() / 4)
        scale = pyro.param("log_scale", torch.tensor(math.log(0.5))).exp()
        pyro.sample("x", Normal(loc, scale))

    for spec in (Elbo(gradient="sticking_the_landing"), ImportanceWeighted(5)):
        _, gradients = estimates(spec, Problem(model), guide, 20)
        assert all(bool((g.abs() < 1e-12).all()) for g in gradients.values())
    _, gradients = estimates(Elbo(), Problem(model), guide, 20)
    assert all(float(g.detach().std()) > 0.1 for g in gradients.values())


# ---- local latents in a plate: weights of their own, minibatches --------------------------------

ROWS = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)
LOCAL = {"slope": 1.3, "gain": 0.4, "log_scale": -0.3}


def local_model(size=None):
    slope = pyro.param("slope", torch.tensor(LOCAL["slope"]))
    with pyro.plate("rows", 4, subsample_size=size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        loc = slope * z[..., 0].sin() + z[..., 1]
        pyro.sample("y", dist.Normal(loc, 0.5), obs=ROWS[index])


def local_guide(size=None):
    gain = pyro.param("gain", torch.tensor(LOCAL["gain"]))
    scale = pyro.param("log_scale", torch.tensor(LOCAL["log_scale"])).exp()
    with pyro.plate("rows", 4, subsample_size=size) as index:
        loc = torch.stack([gain * ROWS[index], 0.5 * gain * ROWS[index]], -1)
        pyro.sample("z", Normal(loc, scale).to_event(1))


def local_bound(slope, gain, log_scale):
    """Σ_n E log ½ (w_n1 + w_n2), by quadrature in the four dims of two draws."""
    nodes, weights = hermite(18)
    first, second = (n.flatten() for n in torch.meshgrid(nodes, nodes, indexing="ij"))
    mass = torch.outer(weights, weights).flatten()
    scale, total = log_scale.exp(), 0.0
    for y in ROWS:
        a, b = gain * y + scale * first, 0.5 * gain * y + scale * second
        log_q = log_normal(a, gain * y, scale) + log_normal(b, 0.5 * gain * y, scale)
        log_p = log_normal(a, 0.0, 1.0) + log_normal(b, 0.0, 1.0)
        log_w = log_p + log_normal(y, slope * a.sin() + b, 0.5) - log_q
        pair = torch.logaddexp(log_w[:, None], log_w) - math.log(2)
        total = total + (torch.outer(mass, mass) * pair).sum()
    return total


@pytest.mark.parametrize("size", [pytest.param(None, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("gradient", ["pathwise", "doubly_reparameterised"])
def test_elements_of_common_plates_have_their_own_weights(gradient, size):
    spec = ImportanceWeighted(2, gradient)
    found = estimates(spec, Problem(local_model, size), local_guide, 3000)
    assert_unbiased(found, exact_gradient(local_bound, **LOCAL))


# ---- draws without a derivative -----------------------------------------------------------------

COUNTS = torch.tensor([0.2, 1.7, -0.5], dtype=torch.float64)
DISCRETE = {
    "a": torch.tensor(0.3, dtype=torch.float64),
    "b": torch.tensor([-0.5, 0.8, 0.1], dtype=torch.float64),
    "c": torch.tensor(0.6, dtype=torch.float64),
    "loc": torch.tensor(0.2, dtype=torch.float64),
    "log_scale": torch.tensor(-0.7, dtype=torch.float64),
}


def discrete_model(size=None):
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    g = pyro.sample("g", dist.Bernoulli(0.3))
    pyro.sample("seen", dist.Normal(x + g, 2.0), obs=torch.tensor(0.9))
    with pyro.plate("rows", 3, subsample_size=size) as index:
        z = pyro.sample("z", dist.Bernoulli(0.2 + 0.5 * g))
        w = pyro.sample("w", dist.Bernoulli(0.4))
        pyro.sample("y", dist.Normal(x + z + 0.5 * w, 1.0), obs=COUNTS[index])


def discrete_guide(size=None):
    """z is drawn given g; w is left to be summed out."""
    p = {name: pyro.param(name, value) for name, value in DISCRETE.items()}
    g = pyro.sample("g", dist.Bernoulli(logits=p["a"]))
    pyro.sample("x", Normal(p["loc"] + 0.3 * g, p["log_scale"].exp()))
    with pyro.plate("rows", 3, subsample_size=size) as index:
        pyro.sample("z", dist.Bernoulli(logits=p["b"][index] + p["c"] * g))


def discrete_bound(a, b, c, loc, log_scale):
    """By summing over g and z and quadrature over x."""
    nodes, weights = hermite(40)
    total = 0.0
    for g, *zs in product((0.0, 1.0), repeat=4):
        z = torch.tensor(zs)
        q_g, q_z = torch.sigmoid(a), torch.sigmoid(b + c * g)
        log_q = torch.log(q_g if g else 1 - q_g) + torch.where(z > 0, q_z, 1 - q_z).log().sum()
        p_z = torch.tensor(0.2 + 0.5 * g)
        log_p = math.log(0.3 if g else 0.7) + torch.where(z > 0, p_z, 1 - p_z).log().sum()
        x = loc + 0.3 * g + log_scale.exp() * nodes
        log_q_x = log_normal(x, loc + 0.3 * g, log_scale.exp())
        log_p = log_p + log_normal(x, 0.0, 1.0) + log_normal(torch.tensor(0.9), x + g, 2.0)
        rows = (log_normal(COUNTS, x[:, None] + z + 0.5 * w, 1.0) for w in (0, 1))
        summed = torch.logaddexp(*(r + math.log(m) for r, m in zip(rows, (0.6, 0.4), strict=True)))
        term = (weights * (log_p + summed.sum(-1) - log_q - log_q_x)).sum()
        total = total + log_q.exp() * term
    return total


SCORE_SPECS = [
    ScoreFunction(2),
    pytest.param(ScoreFunction(4, "leave_one_out"), marks=pytest.mark.slow),
    pytest.param(ScoreFunction(2, "none"), marks=pytest.mark.slow),
    pytest.param(ScoreFunction(2, rao_blackwellise=False), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("spec", SCORE_SPECS)
def test_score_function_gradients_with_discrete_draws(spec):
    found = estimates(spec, Problem(discrete_model), discrete_guide, 6000)
    assert_unbiased(found, exact_gradient(discrete_bound, **DISCRETE))


@pytest.mark.slow
def test_score_function_gradients_with_minibatches():
    found = estimates(ScoreFunction(3), Problem(discrete_model, 2), discrete_guide, 6000)
    assert_unbiased(found, exact_gradient(discrete_bound, **DISCRETE))


@pytest.mark.slow
def test_the_running_mean_is_unbiased_and_is_kept():
    spec = ScoreFunction(1, "running_mean")
    step, names, objective = python_step(spec, Problem(discrete_model), discrete_guide)
    assert not objective.is_recordable
    with seeded(1):
        losses, *gradients = (
            torch.stack(c) for c in zip(*(step() for _ in range(300)), strict=True)
        )
    found = losses, dict(zip(names, gradients, strict=True))
    assert_unbiased(found, exact_gradient(discrete_bound, **DISCRETE))
    shapes = {name: tuple(value.shape) for name, value in objective.state.items()}
    assert shapes == {"g": (1,), "z": (3,)}


@pytest.mark.slow
def test_score_function_gradients_of_continuous_draws():
    def guide():
        loc = pyro.param("loc", torch.tensor(START["loc"]))
        log_scale = pyro.param("log_scale", torch.tensor(START["log_scale"]))
        pyro.sample("x", NonreparameterizedNormal(loc, log_scale.exp()))

    expected = exact_gradient(shifted_bound(1), **START)
    for spec in (ScoreFunction(3), Elbo(3)):
        assert_unbiased(estimates(spec, Problem(shifted_model), guide, 5000), expected)
    for count in (2, 3):
        found = estimates(ImportanceWeighted(count), Problem(shifted_model), guide, 6000)
        assert_unbiased(found, exact_gradient(shifted_bound(count), **START))


def test_leave_one_out_weights_with_discrete_draws_in_a_plate():
    logits = torch.tensor([[0.1, -0.4, 0.3], [0.0, 0.5, -0.2]], dtype=torch.float64)
    data = torch.tensor([0.2, 1.4], dtype=torch.float64)

    def model():
        with pyro.plate("rows", 2):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
            pyro.sample("y", dist.Normal(k.to(data), 0.7), obs=data)

    def guide():
        with pyro.plate("rows", 2):
            pyro.sample("k", dist.Categorical(logits=pyro.param("logits", logits)))

    def bound(logits):
        log_q = logits.log_softmax(-1)
        prior = torch.tensor([0.5, 0.3, 0.2]).log()
        log_w = prior + log_normal(data[:, None], torch.arange(3.0), 0.7) - log_q
        pair = torch.logaddexp(log_w[:, :, None], log_w[:, None]) - math.log(2)
        return ((log_q[:, :, None] + log_q[:, None]).exp() * pair).sum()

    found = estimates(ImportanceWeighted(2), Problem(model), guide, 5000)
    assert_unbiased(found, exact_gradient(bound, logits=logits))


# ---- many draws as one graph, guides of every kind, refusals ------------------------------------


def simplex_model():
    p = pyro.sample("p", dist.Dirichlet(torch.tensor([1.5, 1.0, 2.0])))
    with pyro.plate("rows", 3):
        k = pyro.sample("k", dist.Categorical(p))
        pyro.sample("y", dist.Normal(k.to(DATA), 1.0), obs=DATA)


def plain_dirichlet_guide():
    """torch's Dirichlet, whose gradient vmap cannot follow."""
    alpha = pyro.param("alpha", torch.tensor([1.0, 2.0, 3.0]))
    pyro.sample("p", dist.Dirichlet(alpha))


@pytest.mark.parametrize("spec", [Elbo(3), ImportanceWeighted(3), Elbo(1, "sticking_the_landing")])
def test_a_loop_over_draws_stands_in_for_vmap(spec):
    step, _ = recorded_step(spec, Problem(simplex_model), plain_dirichlet_guide)
    with seeded(0):
        loss, gradient = step()
    assert bool(torch.isfinite(loss))
    assert float(gradient.abs().min()) > 0


def test_the_graph_of_many_draws_is_no_longer_than_that_of_few():
    problem = Problem(simplex_model)
    sizes = [
        len(
            recorded_step(ImportanceWeighted(k), problem, AutoDirichlet(problem.model))[
                0
            ].graph.nodes
        )
        for k in (2, 64)
    ]
    assert sizes[0] == sizes[1]


def test_one_importance_weight_is_the_elbo():
    problem = Problem(shifted_model)
    steps = [
        recorded_step(spec, problem, normal_guide)[0] for spec in (ImportanceWeighted(1), Elbo())
    ]
    outcomes = []
    for step in steps:
        with seeded(0):
            outcomes.append(step())
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.slow
def test_many_weights_reach_the_evidence():
    """log p(x) of the discrete model's evidence is bounded ever more tightly."""
    problem = Problem(shifted_model)
    values = []
    for count in (1, 8, 64):
        losses, _ = estimates(ImportanceWeighted(count), problem, normal_guide, 2000)
        values.append((-float(losses.mean()), float(losses.std()) / math.sqrt(2000)))
    nodes, weights = hermite(120)
    log_w = shifted_log_weight(nodes, *(torch.tensor(v) for v in START.values()))
    evidence = float((log_w + weights.log()).logsumexp(0))
    (one, e1), (eight, e8), (many, e64) = values
    assert one + 4 * e1 < eight - 4 * e8
    assert eight + 4 * e8 < many - 4 * e64
    assert many < evidence + 4 * e64
    assert many > evidence - 0.05


def test_a_fit_with_a_guide_that_draws_discrete_latents():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(x + 4 * z, 0.5), obs=torch.tensor([0.1, 4.2, 0.3]))

    def guide():
        loc = pyro.param("loc", torch.tensor(1.0))
        scale = pyro.param("log_scale", torch.tensor(-1.0)).exp()
        pyro.sample("x", dist.Normal(loc, scale))
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(3))))

    fit = svi(Problem(model), guide, num_particles=4, max_steps=1500)
    # z is unmistakable, so that x has the posterior of a normal mean: precision 1 + 3/0.25
    assert float(fit.mean()["x"]) == pytest.approx(0.6 / 0.25 / 13, abs=0.1)
    logits = fit.params["params"]["logits"].detach()
    assert bool(((logits > 2) == torch.tensor([False, True, False])).all())
    assert bool(((logits < -2) == torch.tensor([True, False, True])).all())


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (ImportanceWeighted(5, "sticking_the_landing"), NotSupportedError, "biased"),
        (ImportanceWeighted(5, "best"), OptionError, "got 'best'"),
        (ImportanceWeighted(0), OptionError, "num_particles ≥ 1"),
        (ImportanceWeighted(5, "pathwise"), NotSupportedError, "at 'g', 'z'"),
        (Elbo(gradient="sticking_the_landing"), NotSupportedError, "at 'g', 'z'"),
        (
            Elbo(gradient="sticking_the_landing", analytic_kl=True),
            NotSupportedError,
            "one of the two",
        ),
        (Elbo(2.0), OptionError, "whole number"),
        (ScoreFunction(1, "leave_one_out"), OptionError, "num_particles ≥ 2"),
        (ScoreFunction(2, "mean"), OptionError, "got 'mean'"),
    ],
)
def test_choices_that_do_not_fit_are_refused(spec, error, words):
    with isolated(), pytest.raises(error, match=words), seeded(0):
        spec(Problem(discrete_model), discrete_guide)


def test_weights_that_have_no_meaning_are_refused():
    def scaled():
        with pyro.poutine.scale(scale=0.5):
            shifted_model()

    def global_latent():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3, subsample_size=2) as index:
            pyro.sample("y", dist.Normal(x, 1.0), obs=DATA[index])

    for model, words in (
        (scaled, "stands under poutine.scale"),
        (global_latent, "'rows' is a mini"),
    ):
        with isolated(), pytest.raises(NotSupportedError, match=words), seeded(0):
            ImportanceWeighted(4)(Problem(model), AutoMeanField(model))


def test_no_closed_kl_is_said():
    with isolated(), pytest.raises(NotSupportedError, match="no latent of model"), seeded(0):
        Elbo(analytic_kl=True)(Problem(local_model), pyro.infer.autoguide.AutoNormal(local_model))
