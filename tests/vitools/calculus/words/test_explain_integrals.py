"""explain() says which factors are integrals, what a curved predictor is, and what flat priors mean."""

import pyro
import pyro.distributions as dist
import torch

from vitools import Problem
from vitools.calculus.words.explain import explain
from vitools.models import SHIPPED


def updates(text):
    """The update of each row."""
    lines = text.splitlines()
    start = lines[0].index("update")
    return {line.split("  ")[0]: line[start:] for line in lines[1:]}


def test_a_softmax_is_said_to_be_bounded():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3, 2), 2.0).to_event(2))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Categorical(logits=x @ w.T), obs=y)

    text = explain(Problem(model, torch.tensor([[1.0, 0.5], [-1.0, 2.0]]), torch.tensor([0, 2])))
    assert "E[log Σ exp η] by its tilted bound" in text
    assert "W = diag(p) - p pᵀ and W z = W E[η] - p" in text
    assert "integral" not in text


def test_a_free_form_factor_is_a_density_by_an_integral():
    def model(y):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        s = pyro.sample("s", dist.HalfCauchy(1.0))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(m, s), obs=y)

    text = explain(Problem(model, torch.tensor([1.0, 2.0])))
    assert updates(text)["s"] == (
        "density ∝ exp(log HalfCauchy(s) - 2.5 s⁻² + 3 E[m] · s⁻² - E[m²] · s⁻² - 2 log s), "
        "by a one-dimensional integral"
    )
    assert text.endswith(
        "2 of 2 latents have coordinate updates, 's' by one-dimensional integrals."
    )


def test_functions_are_written_as_in_a_book():
    def model():
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal((2 * w).cos(), 1.0), obs=torch.tensor(1.0))
        pyro.sample("x", dist.Bernoulli(torch.sigmoid(w)), obs=torch.tensor(1.0))
        pyro.sample("u", dist.Normal((w * w).sqrt(), 1.0), obs=torch.tensor(2.0))

    update = updates(explain(Problem(model)))["w"]
    for words in ("- 0.5 (cos(2 w))²", "log σ(w)", "2 |w| - 0.5 |w|²"):
        assert words in update


def test_a_logistic_regression_has_working_weights():
    example = SHIPPED["logistic-regression"].build(0)
    text = explain(Problem(example.model, *example.args, **example.kwargs))
    update = updates(text)["weights, intercept"]
    assert (
        "P[weights] = I + Σ_rows W · features featuresᵀ, P[intercept] = 0.01 + Σ_rows W" in update
    )
    assert "h[weights] = featuresᵀ outcome + Σ_rows W z · features" in update
    lines = text.splitlines()
    assert (
        "η: the predictor of 'outcome' from intercept, weights; E[softplus(η)] expected by 200 "
        "one-dimensional integrals a sweep;"
    ) in lines
    assert (
        "    W = -E[ℓ″(η)] and W z = E[ℓ′(η)] + W E[η], ℓ the log density in η: surrogate = "
        "natural-gradient step."
    ) in lines
    assert lines[-1] == "2 of 2 latents have coordinate updates."


def test_exponentials_need_no_integral_and_predictors_are_numbered():
    def model(x, y):
        a, b = (pyro.sample(n, dist.Normal(torch.zeros(2), 1.0).to_event(1)) for n in "ab")
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Poisson((x @ a).exp()), obs=y)
            pyro.sample("hit", dist.Bernoulli(logits=x @ b), obs=(y > 1).double())

    x, y = torch.tensor([[1.0, 2.0], [0.5, 1.0]]), torch.tensor([1.0, 2.0])
    text = explain(Problem(model, x, y))
    assert "η₁: the predictor of 'y' from a; E[exp η₁] in closed form;" in text.splitlines()
    assert "I + Σ_n W₁ · x xᵀ" in updates(text)["a"]
    assert "I + Σ_n W₂ · x xᵀ" in updates(text)["b"]


def test_flat_priors_leave_no_evidence():
    def model(y):
        m = pyro.sample("m", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(m, 1.0), obs=y)

    lines = explain(Problem(model, torch.tensor([1.0, 2.0]))).splitlines()
    assert lines[1].endswith("Normal with precision P = 2 and mean P⁻¹(3)")
    said = "flat prior on 'm': the constant of the bound is arbitrary, so it is no evidence."
    assert lines[2] == said
