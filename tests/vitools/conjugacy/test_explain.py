"""explain() says each update in words, and why a site has none."""

import pyro
import pyro.distributions as dist
import torch

from vitools.conjugacy.explain import explain
from vitools.models import two_dice


def test_two_dice():
    text = explain(two_dice.model, (two_dice.simulate(num_rows=500, seed=0).rolls,))
    assert "Dirichlet(1 + Σ_rows q(z1) · q(z2) · data(rolls))" in text
    assert "softmax(E[log pi1] + q(z2) · E[log rho] · data(rolls))" in text
    assert "5 of 5 latents have closed-form updates" in text
    assert "distinct rows of 500 (rows)" in text


def test_normal_with_unknown_mean_and_precision():
    def model():
        m = pyro.sample("m", dist.Normal(0.0, 2.0))
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        with pyro.plate("n", 20):
            pyro.sample("y", dist.Normal(m, tau.rsqrt()), obs=torch.ones(20))

    text = explain(model)
    assert "Normal with precision P = 0.25 + 20 E[tau] and mean P⁻¹(20 E[tau])" in text
    assert "Gamma(12, 11 - 20 E[m] + 10 E[m^2])" in text


def test_a_refusal_names_the_site_and_spares_the_others():
    def model():
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m, scale), obs=torch.tensor(1.0))

    lines = explain(model).splitlines()
    assert lines[1].startswith("scale")
    assert "none: site 'scale': HalfCauchy" in lines[1]
    assert "Gamma prior" in lines[1]
    assert lines[2].split() == ["m", "Normal", "closed", "form"]
    assert lines[3] == "1 of 2 latents have closed-form updates."
