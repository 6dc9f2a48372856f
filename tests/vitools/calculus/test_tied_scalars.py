"""Two scalars that each have a factor and that a term ties: one table of both, against integrals over a grid."""

import functools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import sample
from scipy import special, stats

from vitools import Problem, cavi, explain, load, save
from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.errors import NotSupportedError

_generator = torch.Generator().manual_seed(0)
SIZES = torch._standard_gamma(torch.full((40,), 3.0, dtype=torch.float64), generator=_generator)
COUNTS = torch.poisson(1.2 * SIZES, generator=_generator)


def counts():
    r, p = sample("a", dist.Gamma(2.0, 0.3)), sample("b", dist.Beta(1.0, 2.0))
    with pyro.plate("rows", len(COUNTS)):
        sample("y", dist.NegativeBinomial(r, probs=p), obs=COUNTS)


def log_counts(u, v):  # u = log r, v = logit p
    r, p = np.exp(u), special.expit(v)
    prior = stats.gamma.logpdf(r, 2, scale=1 / 0.3) + u
    prior = prior + stats.beta.logpdf(p, 1, 2) + special.log_expit(v) + special.log_expit(-v)
    # SciPy's p is the probability of what ends the count
    return prior + sum(stats.nbinom.logpmf(y, r, 1 - p) for y in COUNTS.numpy()), (r, p)


def gammas():
    a, b = sample("a", dist.HalfCauchy(5.0)), sample("b", dist.Gamma(1.0, 0.1))
    with pyro.plate("rows", len(SIZES)):
        sample("y", dist.Gamma(a, b), obs=SIZES)


def log_gammas(u, v):  # u = log a, v = log b
    a, b = np.exp(u), np.exp(v)
    prior = stats.halfcauchy.logpdf(a, scale=5) + u + stats.gamma.logpdf(b, 1, scale=10) + v
    return prior + sum(stats.gamma.logpdf(x, a, scale=1 / b) for x in SIZES.numpy()), (a, b)


@functools.cache
def on_a_grid(log_density, ends=6.0, nodes=401):
    line = np.linspace(-ends, ends, nodes)
    u, v = np.meshgrid(line, line, indexing="ij")
    log_p, values = log_density(u, v)
    mass = special.softmax(log_p)
    means = [float((mass * x).sum()) for x in values]
    sds = [math.sqrt(float((mass * x**2).sum()) - m**2) for x, m in zip(values, means, strict=True)]
    return float(special.logsumexp(log_p)) + 2 * math.log(line[1] - line[0]), means, sds


@pytest.mark.parametrize(("model", "truth"), [(counts, log_counts), (gammas, log_gammas)])
def test_the_posterior_of_both_is_that_of_a_grid(model, truth, tmp_path):
    problem = Problem(model)
    fit = cavi(problem)
    evidence, means, sds = on_a_grid(truth)
    assert fit.bound == pytest.approx(evidence, abs=1e-6)
    for name, mean, sd in zip("ab", means, sds, strict=True):
        assert float(fit.mean()[name]) == pytest.approx(mean, rel=1e-5)
        assert float(fit.sd()[name]) == pytest.approx(sd, rel=1e-4)
    assert cavi(problem, joint=[("a", "b")]).bound == pytest.approx(fit.bound, abs=1e-8)
    assert "with one joint table, which keeps their dependence" in explain(problem)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    torch.testing.assert_close(again.sample(5)["a"], fit.sample(5)["a"])


@pytest.mark.parametrize("apart", [{"joint": ()}, {"factorised": "all"}])
def test_sites_kept_apart_keep_their_own_factors(apart, tmp_path):
    fit = cavi(Problem(counts), **apart)
    evidence, _, sds = on_a_grid(log_counts)
    assert fit.bound < evidence - 1.0
    assert float(fit.sd()["a"]) < 0.3 * sds[0]
    kept = cavi(Problem(counts), checkpoint=tmp_path / "run")
    assert kept.bound == pytest.approx(fit.bound, abs=1e-6)


@pytest.mark.slow
def test_shape_and_rate_of_what_is_latent_share_a_table():
    """Rates of counts, each its own: the pair is tied by n a log b, beside the rates' factors."""

    def model():
        a, b = sample("a", dist.HalfCauchy(5.0)), sample("b", dist.Gamma(1.0, 0.1))
        with pyro.plate("rows", 20):
            rate = sample("rate", dist.Gamma(a, b))
            sample("y", dist.Poisson(rate), obs=COUNTS[:20])

    together, apart = cavi(Problem(model)), cavi(Problem(model), joint=())
    assert together.bound > apart.bound + 0.1
    assert float(together.sd()["a"]) > 1.5 * float(apart.sd()["a"])
    draws = together.log_weights(500)
    error = float(draws.std()) / math.sqrt(500)
    assert float(draws.mean()) == pytest.approx(together.bound, abs=4 * error)


def test_a_location_and_its_scale_share_one_if_asked():
    def model():
        m, s = sample("m", dist.Normal(0.0, 5.0)), sample("s", dist.HalfCauchy(5.0))
        with pyro.plate("rows", 6):
            sample("y", dist.Normal(m, s), obs=SIZES[:6])

    def log_density(m, v):
        s = np.exp(v)
        prior = stats.norm.logpdf(m, 0, 5) + stats.halfcauchy.logpdf(s, scale=5) + v
        return prior + sum(stats.norm.logpdf(x, m, s) for x in SIZES[:6].numpy()), (m, s)

    assert isinstance(ConjugateModel(model).block_of["s"], FreeFormBlock)
    evidence, _, sds = on_a_grid(log_density, 40.0, 2001)
    plain, asked = cavi(Problem(model)), cavi(Problem(model), joint=[("m", "s")])
    assert plain.bound < evidence - 0.01
    assert asked.bound == pytest.approx(evidence, abs=1e-6)
    assert float(asked.sd()["m"]) == pytest.approx(sds[0], rel=1e-3)


@pytest.mark.parametrize("joint", [[("a", "b", "c")], [("a", "d")], [("a", "e")]])
def test_what_is_no_pair_is_refused(joint):
    def model():
        a, b, c = (sample(name, dist.Gamma(2.0, 1.0)) for name in "abc")
        with pyro.plate("groups", 2):
            sample("d", dist.Gamma(a, 1.0))
        with pyro.plate("many", 200):
            e = sample("e", dist.Gamma(a, b))
        sample("y", dist.Gamma(a, c), obs=torch.tensor(1.0))
        with pyro.plate("rows", 200):
            sample("z", dist.Poisson(e), obs=torch.ones(200))

    with pytest.raises(NotSupportedError, match="for two scalars of the same plates, up to 100"):
        cavi(Problem(model), joint=joint)
