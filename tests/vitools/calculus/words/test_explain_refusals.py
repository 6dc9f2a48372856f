"""explain() says why a site has no update, which engine fits the model, and spares the other sites."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem
from vitools.calculus.words.explain import explain
from vitools.models import SHIPPED


def test_a_refusal_names_the_site_and_spares_the_others():
    def model():
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m, scale), obs=torch.tensor(1.0))

    lines = explain(Problem(model)).splitlines()
    assert lines[1] == "scale  HalfCauchy  -        none: HalfCauchy is not conjugate to Normal 'y'"
    assert lines[2].strip() == (
        "a Gamma prior on the precision is the conjugate choice; "
        "or svi() and nuts() fit it by the gradient of its density"
    )
    update = "Normal with precision P = 1 + E[scale⁻²] and mean P⁻¹(E[scale⁻²])"
    assert lines[3] == f"m      Normal      -        {update}"
    assert lines[4] == "1 of 2 latents have closed-form updates."


def test_whatever_meets_an_operation_without_closed_form_is_at_fault():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        v = pyro.sample("v", dist.Normal(0.0, 1.0))
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(w.cos() + v, 1.0), obs=x)
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


@pytest.mark.parametrize(
    ("name", "good", "reason", "engine"),
    [
        (
            "logistic-regression",
            "0 of 2",
            "Bernoulli is not conjugate to 'intercept', 'weights'",
            "svi() and nuts() fit it",
        ),
        (
            "poisson-regression",
            "0 of 2",
            "Poisson is not conjugate to 'intercept', 'weights'",
            "svi() and nuts() fit it",
        ),
        (
            "vae",
            "0 of 1",
            "'logits' of Bernoulli depends on latent 'z'",
            "unknowns are many for nuts()",
        ),
    ],
)
def test_shipped_models_without_updates_say_why(name, good, reason, engine):
    text = explain_shipped(name)
    assert text.endswith(f"{good} latents have closed-form updates.")
    assert reason in " ".join(text.split())
    assert engine in text
