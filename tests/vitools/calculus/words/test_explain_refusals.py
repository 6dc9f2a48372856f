"""explain() says why a site has no update, which engine fits the model, and spares the other sites."""

import pyro
import pyro.distributions as dist
import torch

from vitools import Problem
from vitools.calculus.words.explain import explain
from vitools.models import SHIPPED


def test_a_refusal_names_the_sites_and_spares_the_others():
    def model():
        wide = pyro.sample("wide", dist.HalfCauchy(1.0))
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 200):
            scale = pyro.sample("scale", dist.HalfCauchy(wide))
            pyro.sample("y", dist.Normal(m, scale), obs=torch.ones(200))

    lines = explain(Problem(model)).splitlines()
    said = "wide   values on a lattice  -        none: site 'scale': HalfCauchy has no "
    assert lines[1].startswith(said)
    assert "in which 'scale', 'wide' separate" in " ".join(" ".join(lines).split())
    assert lines[3].strip() == "svi() and nuts() fit it by the gradient of its density"
    update = "Normal with precision P = 1 + Σ_rows E[scale⁻²] and mean P⁻¹(Σ_rows E[scale⁻²])"
    assert lines[4] == f"m      Normal               -        {update}"
    assert lines[-1] == "1 of 3 latents have closed-form updates."


def test_others_that_share_a_factor_are_spared_together():
    def model(x):
        a, b = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "ab")
        g = pyro.sample("g", dist.Gamma(torch.ones(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)
        pyro.sample("y", dist.Categorical(g), obs=torch.tensor(1))

    lines = explain(Problem(model, torch.tensor(1.0))).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("a, b ")] == ["a,"]
    assert lines[-1] == "2 of 3 latents have closed-form updates."


def test_whatever_meets_an_operation_without_closed_form_is_at_fault():
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(200), 1.0).to_event(1))
        v = pyro.sample("v", dist.Normal(torch.zeros(200), 1.0).to_event(1))
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal((w * v).cos(), 1.0).to_event(1), obs=x.expand(200))
        pyro.sample("y", dist.Normal(m, 1.0), obs=x)

    lines = explain(Problem(model, torch.tensor(1.0))).splitlines()
    assert lines[-1] == "1 of 3 latents have closed-form updates."
    (v,) = (line for line in lines if line.startswith("v "))
    assert "depends on latent 'v', 'w' through an operation" in v
    (m,) = (line for line in lines if line.startswith("m "))
    assert m.endswith("Normal with precision P = 2 and mean P⁻¹(1)")


def test_a_count_without_a_list_of_values_is_left_to_a_guide_that_draws_it():
    def model():
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        with pyro.plate("pair", 2):
            k = pyro.sample("k", dist.Poisson(rate))
            pyro.sample("y", dist.Normal(k, 1.0), obs=torch.tensor([1.0, 2.0]))

    text = " ".join(explain(Problem(model)).split())
    assert "svi() with a guide that draws 'k' fits it" in text
    assert "0 of 2 latents have closed-form updates." in text


def explain_shipped(name):
    example = SHIPPED[name].build(0)
    return explain(Problem(example.model, *example.args, **example.kwargs))


def test_shipped_models_without_updates_say_why():
    text = explain_shipped("vae")
    assert text.endswith("0 of 1 latents have closed-form updates.")
    assert "softplus of what is not linear in the latents" in " ".join(text.split())
    assert "unknowns are many for nuts()" in text
