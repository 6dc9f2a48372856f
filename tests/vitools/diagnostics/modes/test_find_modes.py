"""The scan for modes, on densities whose modes and shares are known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from vitools import Problem, cavi
from vitools.diagnostics import Grade, find_modes, judge
from vitools.diagnostics.modes.missed import scan_for
from vitools.errors import NotSupportedError, OptionError
from vitools.posterior import GaussianPosterior, Posterior, Status

FLAT = dist.ImproperUniform(constraints.real, torch.Size(), torch.Size())


def mixture_of(*parts):
    def model():
        t = pyro.sample("t", FLAT)
        terms = [math.log(w / sd) - ((t - mean) / sd) ** 2 / 2 for w, mean, sd in parts]
        pyro.factor("target", torch.logsumexp(torch.stack(terms), 0))

    return Problem(model)


def gaussian(problem, mean, sd):
    at = torch.tensor([mean]).double()
    return GaussianPosterior(
        problem,
        location=at,
        scale_tril=torch.tensor([[sd]]).double(),
        location_error=torch.zeros_like(at),
        engine="by hand",
        status=Status.CONVERGED,
    )


@pytest.mark.parametrize(
    "parts",
    [
        [(1.0, 3.0, 0.5)],
        [(0.9, 0.0, 1.0), (0.1, 9.0, 1.0)],
        [(0.7, -2.0, 0.2), (0.3, 15.0, 3.0)],
        [(0.5, 0.0, 1.0), (0.3, 10.0, 0.5), (0.2, -10.0, 2.0)],
    ],
)
def test_every_mode_is_found_with_its_share(parts):
    found = find_modes(mixture_of(*parts))
    assert [round(mode.share, 2) for mode in found] == [w for w, _, _ in parts]
    for mode, (_, mean, sd) in zip(found, parts, strict=True):
        assert float(mode.values["t"]) == pytest.approx(mean, abs=1e-3)
        assert float(mode.precision) == pytest.approx(1 / sd**2, rel=1e-2)
        assert mode.log_mass == pytest.approx(
            math.log(mode.share * math.sqrt(2 * math.pi)), abs=1e-2
        )


def test_constrained_sites_come_back_in_their_support():
    def model(y):
        scale = pyro.sample("scale", dist.Gamma(torch.tensor(3.0).double(), 1.0))
        pyro.sample("y", dist.Normal(torch.zeros_like(scale), scale), obs=y)

    (mode,) = find_modes(Problem(model, torch.tensor(2.0).double()))
    s = float(mode.values["scale"])  # of the density of log scale: 2 + 1 - s - 1 + y² / s² = 0
    assert 3 - s - 1 + 4 / s**2 == pytest.approx(0.0, abs=1e-5)


def test_a_seed_repeats_itself():
    problem = mixture_of((0.5, -3.0, 1.0), (0.5, 3.0, 1.0))
    first, second = (find_modes(problem, seed=3) for _ in range(2))
    assert [float(m.point) for m in first] == [float(m.point) for m in second]


@pytest.mark.parametrize(
    ("share", "grade"), [(0.5, Grade.REJECT), (0.15, Grade.REJECT), (0.05, Grade.CARE)]
)
def test_a_fit_that_misses_a_mode_is_told_so(share, grade):
    problem = mixture_of((1 - share, 0.0, 1.0), (share, 12.0, 1.0))
    found = judge(gaussian(problem, 0.0, 1.01))
    assert found.verdict.grade is grade
    assert "t = 12" in found.verdict.reason
    assert found.scan.missed_share == pytest.approx(share, abs=1e-3)


def test_a_small_mode_far_away_is_missed_for_its_distance():
    """A hundredth of the mass at 40 sds makes an sd of √(1 + .0099 · 1600) = 4.1."""
    problem = mixture_of((0.99, 0.0, 1.0), (0.01, 40.0, 1.0))
    found = judge(gaussian(problem, 0.0, 1.01))
    assert found.verdict.grade is Grade.CARE
    assert "0.01 of the mass is missed, and with it the sd of t: 0.2" in found.verdict.reason
    assert found.scan.sd_ratio == pytest.approx(1 / math.sqrt(1 + 0.01 * 1600), rel=0.1)
    near = judge(gaussian(mixture_of((0.995, 0.0, 1.0), (0.005, 9.0, 0.5)), 0.0, 1.0))
    assert near.scan.missed_share == pytest.approx(0.005, abs=1e-4)
    assert near.verdict.grade is Grade.TRUST


def test_a_fit_of_the_only_mode_is_trusted():
    found = judge(gaussian(mixture_of((1.0, 2.0, 1.0)), 2.0, 1.01))
    assert found.verdict.grade is Grade.TRUST
    assert found.verdict.reason.endswith("a scan found 1 mode")


def test_a_narrow_fit_in_a_wide_tail_is_not_trusted():
    """All but equal weights: .8 N(0, .1) + .2 N(0, 5), fitted by its narrow part."""
    problem = mixture_of((0.8, 0.0, 0.1), (0.2, 0.0, 5.0))
    grades = [judge(gaussian(problem, 0.0, 0.1), seed=seed).verdict.grade for seed in range(5)]
    assert Grade.TRUST not in grades


def only_discrete(y):
    z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
    pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def large(y):
    with pyro.plate("rows", 1001):
        theta = pyro.sample("theta", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: find_modes(only_discrete), OptionError, "Problem"),
        (lambda: find_modes(mixture_of((1.0, 0.0, 1.0)), num_starts=0), OptionError, "num_starts"),
        (lambda: find_modes(mixture_of((1.0, 0.0, 1.0)), seed=-1), OptionError, "seed"),
        (
            lambda: find_modes(Problem(only_discrete, torch.tensor(1.0))),
            NotSupportedError,
            "discrete",
        ),
        (lambda: find_modes(Problem(large, torch.zeros(1001))), NotSupportedError, "1001"),
    ],
)
def test_what_it_cannot_do_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call()


def poisson_regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((x @ w + 2.0).exp()), obs=y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_climbs_that_have_not_arrived_are_no_modes(dtype):
    """Its density is log-concave. In float32 far starts get stuck where a step's gain is below rounding."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    y = torch.poisson((x @ torch.tensor([0.3, -0.2]).double() + 2.0).exp(), generator=generator)
    problem = Problem(poisson_regression, x.to(dtype), y.to(dtype))
    (mode,) = find_modes(problem)
    w = mode.values["w"].double()
    slope = (y - (x @ w + 2.0).exp()) @ x - w  # 0 at the mode
    curvature = (x.mT * (x @ w + 2.0).exp()) @ x + torch.eye(2).double()
    off = slope @ torch.linalg.solve(curvature, slope)
    assert off < 2e-2 if dtype is torch.float32 else off < 1e-8


def narrow_on_the_flank():
    """A narrow mode low on the flank of a wide one: a straight way has its barrier close to its start."""
    return mixture_of((0.97, 0.0, 3.0), (0.03, 6.0, 0.02))


def test_a_narrow_mode_on_a_flank_is_one_of_its_own():
    problem = narrow_on_the_flank()
    found = find_modes(problem, num_starts=64)
    assert [round(mode.share, 2) for mode in found] == [0.97, 0.03]


def funnel(y):
    v = pyro.sample("v", dist.Normal(torch.zeros_like(y), 3.0))
    with pyro.plate("groups", 4):
        x = pyro.sample("x", dist.Normal(torch.zeros_like(y), (v / 2).exp()))
    pyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)


def of_funnel():
    """Of ∫ N(v | 0, 3) N(1 | 0, √(4 eᵛ + 1)) dv: nodes, log density there, log of the integral."""
    v = torch.linspace(-40.0, 40.0, 100_001).double()
    density = torch.distributions.Normal(0.0, 3.0).log_prob(v)
    density += torch.distributions.Normal(0.0, (4 * v.exp() + 1).sqrt()).log_prob(v.new_tensor(1.0))
    return v, density, float(density.logsumexp(0) + (v[1] - v[0]).log())


def test_a_peak_far_below_the_mass_is_no_missed_mode():
    """The funnel's only peak is at v = -18, where -v/9 - 4/2 = 0, all x being near 0. It holds e⁻¹⁷ of the
    mass by Laplace's approximation, and no draw of the posterior is there."""
    problem = Problem(funnel, torch.tensor(1.0).double())
    nodes, density, truth = of_funnel()
    generator = torch.Generator().manual_seed(0)
    v = nodes[torch.multinomial((density - density.max()).exp(), 1000, True, generator=generator)]
    scale, total = (v / 2).exp(), (4 * v.exp() + 1).sqrt()
    noise = torch.randn(1000, 5, generator=generator).double()
    x = scale[:, None] * noise[:, :4]  # and the prior's draws moved to where they give y = 1
    x += (scale**2 / total**2 * (1.0 - x.sum(1) - noise[:, 4]))[:, None]
    fit = Posterior.from_draws(problem, {"v": v[None], "x": x[None]})
    values = fit.pooled()
    found = scan_for(fit, values, truth)
    (mode,) = found.modes
    assert float(mode.values["v"]) == pytest.approx(-18.0, abs=0.05)
    assert mode.share == pytest.approx(math.exp(mode.log_mass - truth))
    assert mode.share < 1e-7
    assert not found.missed
    assert found.words == "a scan found 1 mode, with 2e-08 of the mass"
    assert scan_for(fit, values).modes[0].share == 1.0  # of the modes found, where nothing is known


@pytest.mark.slow
def test_a_good_fit_of_a_funnel_is_trusted():
    problem = Problem(funnel, torch.tensor(1.0).double())
    found = judge(cavi(problem, nested=["v"]))
    assert found.accounted.value == pytest.approx(
        of_funnel()[2], abs=5 * found.accounted.standard_error
    )
    assert found.verdict.grade is Grade.TRUST
